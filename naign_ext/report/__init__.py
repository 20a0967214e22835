"""What a run is shown by: figures, pictures, and a page."""
