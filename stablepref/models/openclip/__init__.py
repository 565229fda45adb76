"""Every architecture of open_clip: SigLIP, EVA, CoCa, MobileCLIP, ConvNeXt and the like."""
