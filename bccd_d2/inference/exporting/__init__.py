"""The network as a file: ONNX, OpenVINO and TorchScript, packages of the BioImage Model Zoo, and what runs them."""
