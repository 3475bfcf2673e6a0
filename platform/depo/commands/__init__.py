"""What each `depo` command does, once its arguments are parsed."""
