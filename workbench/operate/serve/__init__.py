"""Serving: TensorFlow Serving's protocol, REST and gRPC, over models in processes of their own.

    python -m workbench.operate.serve --rest_api_port=8501 --model_name=digits --model_base_path=/models/digits
    workbench serve digits                          # the same, of the registry

A request goes rest.py or grpc_api.py -> inference.py -> versions.py (which version) -> replicas.py (which batch, which
process) -> process.py and model.py, in a process that TensorFlow may end without ending the server.
"""
