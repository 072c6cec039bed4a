"""What is worth a look: label issues, odd images, duplicates, the gallery."""
