"""Libraries that compute the FID, one module each: their own code around a stub where the pretrained network belongs.

No weights are needed: `stub.Pooled` takes the network's place in distances, and `stub.FirstLayer` shows what would have been its input.
"""
