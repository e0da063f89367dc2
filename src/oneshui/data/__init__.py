"""From a raw folder of faces to tables and pixels: readers, probing, index."""
