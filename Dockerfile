# docker build -t bccd_d2 .                                   with PyTorch for CUDA (run with --gpus all; works on CPUs too)
# docker build -t bccd_d2:cpu --build-arg TORCH_INDEX=URL .   with PyTorch for CPUs, gigabytes smaller: URL is the address
#                                                             of the CPU package index that PyTorch's install page names
# docker run --rm -v "$PWD:/data" bccd_d2 tools/predict.py --input /data/smear.png --output /data/predictions
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=""
WORKDIR /opt/bccd_d2
# OpenCV is the headless build and Detectron2 is plain Python: nothing is compiled. Versions are those of setup.py.
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi
COPY . .
RUN pip install --no-cache-dir -e ".[train]" && python tools/install_detectron2.py
ENTRYPOINT ["python"]
CMD ["tools/predict.py", "--help"]
