"""SGSeg as published: ConvNeXt-T, CXR-BERT, RT-DETR, guided decoder."""
