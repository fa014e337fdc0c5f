"""Serve a release with onnxruntime, numpy and Pillow alone: `python serve_onnx.py RELEASE PORT`,
then POST an image to that port.
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

release = Path(sys.argv[1])
labels, told = (
    json.loads((release / name).read_text()) for name in ("labels.json", "preprocessing.json")
)
session = onnxruntime.InferenceSession(
    release / "model.onnx", providers=onnxruntime.get_available_providers()
)


class Classifier(BaseHTTPRequestHandler):
    """Answers an image with the probability of each label, as JSON."""

    def do_POST(self) -> None:
        """Decode, resize, normalise, ask, answer."""
        image = Image.open(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"]))))
        small = image.convert("L" if told["channels"] == "grey" else "RGB").resize(
            told["shape"][:1:-1], Image.Resampling.BILINEAR
        )
        pixels = (np.atleast_3d(small) / 255 - told["mean"]) / told["std"]
        logits = session.run(
            ["logits"], {"pixels": pixels.transpose(2, 0, 1)[None].astype(np.float32)}
        )[0][0]
        shares = np.exp(logits - logits.max())
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            json.dumps(dict(zip(labels, (shares / shares.sum()).tolist(), strict=True))).encode()
        )


HTTPServer(("127.0.0.1", int(sys.argv[2])), Classifier).serve_forever()
