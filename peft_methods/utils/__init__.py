"""Text, numbers, files and errors. Nothing here knows of machine learning."""
