"""The filter language: what is typed behind `/` and on the command line, and which traces it means."""
