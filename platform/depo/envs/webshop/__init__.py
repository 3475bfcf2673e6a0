"""WebShop: a simulated shop in text, with search, options and graded purchases."""
