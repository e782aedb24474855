"""The page that shows what is in masks files: numbers as JSON, and from the JSON alone HTML and MultiQC's format."""
