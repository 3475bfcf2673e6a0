"""The stages of the pipeline: thin schedulers over plain worker classes; the only room with Ray."""
