"""What generators other than inpainting ones take: each output a module, fed frame by frame beside the rendering."""
