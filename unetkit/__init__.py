"""unetkit: from annotated microscopy images to seamless segmentations of slides of any size."""
