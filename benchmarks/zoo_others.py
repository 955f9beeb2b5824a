"""Networks of other libraries, cut by half and proved exact; no line of `compress` knows any of them.

    pip install segmentation-models-pytorch transformers pytorchcv monai einops ultralytics open_clip_torch \
        efficientnet_pytorch vit-pytorch spandrel kornia python-doctr torchaudio diffusers facenet-pytorch resnest six
    pip install --no-deps pretrainedmodels birder && pip install webdataset torchinfo pyarrow
    pip install mmengine mmcv-lite==2.1.0 mmpretrain
    python benchmarks/zoo_others.py                  # all; writes benchmarks/results/zoo_others.json and .md
    python benchmarks/zoo_others.py --missing        # those that have no row there yet, and those that failed
    python benchmarks/zoo_others.py --only '*yolo*'  # some, to look at

Weights are random, as in zoo.py, and every network runs in a process of its own. A library that is not installed is
left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from zoo_libraries import libraries
from zoo_models import Entry

from compress.measure.machine import this_machine

RESULT = Path(__file__).resolve().parent / "results" / "zoo_others.json"
Made = tuple[nn.Module, tuple[Any, ...]]

DECODERS = "Unet UnetPlusPlus FPN PSPNet DeepLabV3 DeepLabV3Plus PAN Linknet MAnet UPerNet Segformer"
ENCODERS = (
    "mobilenet_v2 efficientnet-b0 densenet121 vgg11_bn mit_b0 timm-regnetx_002 xception inceptionv4 se_resnet50 dpn68 "
    "mobileone_s0 tu-convnext_tiny"
)
PYTORCHCV = (
    "resnet18 preresnet18 resnext26_32x4d seresnet18 senet16 ibn_resnet50 airnet50_1x64d_r2 resattnet56 sknet50 "
    "diaresnet18 pyramidnet101_a360 densenet121 peleenet wrn50_2 drnc26 dpn68 darknet53 irevnet301 bagnet9 dla34 "
    "hrnet_w18_small_v1 vovnet39 selecsls42 hardnet39ds xdensenet121_2 squeezenet_v1_0 squeezeresnet_v1_0 sqnxt23_w1 "
    "shufflenet_g3_w1 shufflenetv2_w1 menet108_8x1_g3 mobilenet_w1 mobilenetv2_w1 mobilenetv3_small_w1 igcv3_w1 "
    "mnasnet_b1 ghostnet proxylessnas_cpu fbnet_cb xception inceptionv3 inceptionv4 inceptionresnetv2 polynet "
    "nasnet_4a1056 pnasnet5large spnasnet efficientnet_b0 mixnet_s resneta50b resnetd50b nin_cifar10 ror3_56_cifar10 "
    "rir_cifar10 msdnet22 shakeshakeresnet20_2x16d_cifar10 diracnet18v2 regnetx002 regnety002 zfnet bninception "
    "alexnet lwopenpose2d_mobilenet_cmupan_coco alphapose_fastseresnet101b_coco centernet_resnet18_voc "
    "icnet_resnetd50b_cityscapes fastscnn_cityscapes bisenet_resnet18_celebamaskhq sinet_cityscapes dabnet_cityscapes "
    "lednet_cityscapes cgnet_cityscapes fcn8sd_resnetd50b_voc pspnet_resnetd50b_voc danet_resnetd50b_cityscapes "
    "deeplabv3_resnetd50b_voc"
)
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
VIT = TINY | {"intermediate_size": 128}
STAGES = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}
WIDE = {"embedding_size": 16, "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1]}
SWIN = {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
# Class and configuration without their common endings, size of the images, options: small where that is an option.
TRANSFORMERS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", "ViT", 64, VIT),
    "deit": ("DeiTForImageClassification", "DeiT", 64, VIT),
    "beit": ("BeitForImageClassification", "Beit", 64, VIT),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2", 64, TINY),
    "swin": ("SwinForImageClassification", "Swin", 64, SWIN),
    "swinv2": ("Swinv2ForImageClassification", "Swinv2", 64, SWIN),
    "convnext": ("ConvNextForImageClassification", "ConvNext", 64, STAGES),
    "convnextv2": ("ConvNextV2ForImageClassification", "ConvNextV2", 64, STAGES),
    "resnet": ("ResNetForImageClassification", "ResNet", 64, WIDE),
    "regnet": ("RegNetForImageClassification", "RegNet", 64, WIDE | {"groups_width": 16}),
    "bit": ("BitForImageClassification", "Bit", 64,
            WIDE | {"embedding_size": 32, "hidden_sizes": [128, 256, 512, 512]}),
    "segformer": ("SegformerForSemanticSegmentation", "Segformer", 128, {"decoder_hidden_size": 32}),
    "mobilevit": ("MobileViTForImageClassification", "MobileViT", 128, {"image_size": 128}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "MobileNetV2", 96, {}),
    "poolformer": ("PoolFormerForImageClassification", "PoolFormer", 64, {}),
    "levit": ("LevitForImageClassification", "Levit", 64, {"image_size": 64}),
    "pvt": ("PvtForImageClassification", "Pvt", 64, {"image_size": 64}),
    "cvt": ("CvtForImageClassification", "Cvt", 64, {}),
    "focalnet": ("FocalNetForImageClassification", "FocalNet", 64, {"image_size": 64, "embed_dim": 24}),
    "efficientnet": ("EfficientNetForImageClassification", "EfficientNet", 64, {"image_size": 64, "hidden_dim": 1280,
                     "width_coefficient": 1.0, "depth_coefficient": 1.0}),
    "clip": ("CLIPVisionModel", "CLIPVision", 64, VIT),
    "siglip": ("SiglipVisionModel", "SiglipVision", 64, VIT),
    "yolos": ("YolosForObjectDetection", "Yolos", 64, VIT | {"image_size": [64, 64], "num_detection_tokens": 5}),
    "dpt": ("DPTForDepthEstimation", "DPT", 64, VIT | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [16, 32, 48, 64], "fusion_hidden_size": 32}),
}  # fmt: skip
MONAI: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "unet": ("UNet", (2, 1, 2, (8, 16, 32), (2, 2)), {"num_res_units": 1}, (1, 64, 64)),
    "basic_unet": ("BasicUNet", (2, 1, 2), {"features": (8, 8, 16, 32, 64, 8)}, (1, 64, 64)),
    "attention_unet": ("AttentionUnet", (2, 1, 2, (8, 16, 32), (2, 2)), {}, (1, 64, 64)),
    "dyn_unet": ("DynUNet", (3, 1, 2, [3] * 3, [1, 2, 2], [2, 2]), {"filters": [8, 16, 32]}, (1, 32, 32, 32)),
    "seg_resnet": ("SegResNet", (3, 8, 1, 2), {}, (1, 32, 32, 32)),
    "vnet": ("VNet", (3, 1, 2), {}, (1, 32, 32, 32)),
    "unetr": ("UNETR", (1, 2, (32, 32, 32)), {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
              (1, 32, 32, 32)),
    "swin_unetr": ("SwinUNETR", (1, 2), {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 4, 4)},
                   (1, 64, 64, 64)),
    "vit": ("ViT", (1, (32, 32, 32), (16, 16, 16)), {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 4,
            "classification": True}, (1, 32, 32, 32)),
    "high_res_net": ("HighResNet", (3, 1, 2), {}, (1, 16, 16, 16)),
    "flexible_unet": ("FlexibleUNet", (3, 2, "efficientnet-b0"), {"pretrained": False}, (3, 64, 64)),
    "se_resnet50": ("SEResNet50", (), {"spatial_dims": 2, "in_channels": 3, "num_classes": 10}, (3, 64, 64)),
}  # fmt: skip
ULTRALYTICS = {
    "yolov5n": "Detection", "yolov8n": "Detection", "yolov10n": "Detection", "yolo11n": "Detection",
    "yolo12n": "Detection", "yolov8n-seg": "Segmentation", "yolo11n-cls": "Classification",
}  # fmt: skip


def _image(size: int) -> tuple[Any, ...]:
    return (torch.randn(1, 3, size, size),)


def _segmenter(decoder: str, encoder: str) -> Made:
    made = getattr(import_module("segmentation_models_pytorch"), decoder)
    return made(encoder_name=encoder, encoder_weights=None, classes=3), _image(128)


def _transformer(name: str) -> Made:
    library = import_module("transformers")
    kind, config, size, options = TRANSFORMERS[name]
    return getattr(library, kind)(getattr(library, f"{config}Config")(**options)), _image(size)


def _pytorchcv(name: str) -> Made:
    get_model = import_module("pytorchcv.model_provider").get_model
    if name.endswith("cityscapes"):
        try:
            return get_model(name, pretrained=False, in_size=(256, 256), fixed_size=False), _image(256)
        except TypeError:  # its size is fixed
            pass
    model = get_model(name, pretrained=False)
    return model, (torch.randn(1, 3, *getattr(model, "in_size", (224, 224))),)


def _monai(name: str) -> Made:
    kind, given, options, shape = MONAI[name]
    return getattr(import_module("monai.networks.nets"), kind)(*given, **options), (torch.randn(1, *shape),)


def _ultralytics(name: str) -> Made:
    kind = getattr(import_module("ultralytics.nn.tasks"), f"{ULTRALYTICS[name]}Model")
    return kind(f"{name}.yaml", verbose=False), _image(128)


def _open_clip(name: str) -> Made:
    if name == "ModifiedResNet":
        made = import_module("open_clip.modified_resnet").ModifiedResNet([1, 1, 1, 1], 32, 4, image_size=64, width=16)
    else:
        made = import_module("open_clip.transformer").VisionTransformer(64, 16, 64, 2, 4, 2.0, output_dim=32)
    return made, _image(64)


def _efficientnet(name: str) -> Made:
    return import_module("efficientnet_pytorch").EfficientNet.from_name(name), _image(64)


def entries() -> Iterator[Entry]:
    """All networks, library by library."""
    segmenters = [(d, "resnet18") for d in DECODERS.split()] + [("Unet", e) for e in ENCODERS.split()]
    for decoder, encoder in segmenters:
        yield _entry("segmentation-models-pytorch", f"{decoder} {encoder}", _segmenter, decoder, encoder)
    kinds: tuple[tuple[str, Callable[[str], Made], list[str]], ...] = (
        ("transformers", _transformer, list(TRANSFORMERS)),
        ("pytorchcv", _pytorchcv, PYTORCHCV.split()),
        ("monai", _monai, list(MONAI)),
        ("ultralytics", _ultralytics, list(ULTRALYTICS)),
        ("open_clip_torch", _open_clip, ["ModifiedResNet", "VisionTransformer"]),
        ("efficientnet_pytorch", _efficientnet, ["efficientnet-b0"]),
    )
    for library, make, names in kinds:
        for name in names:
            yield _entry(library, name, make, name)
    yield from libraries()


def _entry(library: str, name: str, make: Callable[..., Made], *given: str) -> Entry:
    def trainable() -> Made:
        model, example = make(*given)
        return model.requires_grad_(), example

    return Entry(library, name, trainable, library)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _table(result: dict[str, Any]) -> str:
    rows, lines = result["networks"], ["# Networks of other libraries, cut by half", ""]
    fine = [r for r in rows if "cut_error" not in r]
    own = sum(r["delivered"] == "module" for r in fine)
    low = sum(r["macs_ratio"] < 0.4 for r in fine)
    worst = max((r["exact"] for r in fine), default=0.0)
    about = (
        f"`python benchmarks/zoo_others.py`, {result['machine']}; {_runs(rows)}. "
        "Random weights, half of the channels of every group (`--percent 0.5 --scope layer`), the "
        "result compared with the masked original in float64."
    )
    sums = (
        f"**{len(fine)} of {len(rows)} are cut, exact (largest relative error {worst:.1e}) and run; {own} are the "
        f"library's own class; the MACs fall below 0.40 in {low}.**"
    )
    head = "| library | network | delivered | MACs left | parameters left | free to leave | relative error | remark |"
    lines += [about, "", sums, "", head, "|---|---|---|--:|--:|--:|--:|---|"]
    for r in rows:
        head = f"| {r['kind']} {result['versions'].get(r['kind'], '')} | {r['name']} "
        if "cut_error" in r:
            lines.append(f"{head}| fails | | | | | {r['cut_error'].replace('|', '/')} |")
            continue
        remark = r["why"] if r["delivered"] != "module" else "; ".join(list(r["pins"])[:1]) if r["free"] < 0.9 else ""
        numbers = f"{r['macs_ratio']:.2f} | {r['parameters_ratio']:.2f} | {100 * r['free']:.0f} % | {r['exact']:.0e}"
        delivered = "own class" if r["delivered"] == "module" else "graph"
        lines.append(f"{head}| {delivered} | {numbers} | {remark.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def _runs(rows: list[dict[str, Any]]) -> str:
    """How many rows are of which commit, day and torch."""
    each = Counter(f"torch {row['torch']}, commit {row['commit']}, {row['date']}" for row in rows)
    return "; ".join(f"{count} rows of {run}" for run, count in each.items())


def main() -> None:
    """Run, and write the result unless only some were asked for."""
    from zoo import _commit, _line, _of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of libraries or networks, as a glob; nothing is written")
    parser.add_argument("--missing", action="store_true", help="keep the rows that there are, but for failures")
    parser.add_argument("--limit", type=float, default=240, help="CPU seconds for one network")
    given = parser.parse_args()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if given.missing else {"networks": [], "versions": {}}
    known = {(row["kind"], row["name"]): row for row in found["networks"] if "cut_error" not in row}
    versions = {library: _version(library) for library in dict.fromkeys(e.kind for e in entries())}
    about = {"commit": _commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d"), "torch": torch.__version__}
    rows = []
    for entry in entries():
        if (entry.kind, entry.name) in known:
            rows.append(known[entry.kind, entry.name])
            versions[entry.kind] = found["versions"][entry.kind]
        elif versions[entry.kind] is None:
            print(f"{entry.kind} is not installed: {entry.name} is left out", flush=True)
        elif fnmatchcase(entry.name, given.only) or fnmatchcase(entry.kind, given.only):
            rows += [row | about for row in _of(["cut"], entry.kind, entry.name, entry.family, given.limit)]
            print(_line(rows[-1]), flush=True)
    if given.only == "*":
        result = {"machine": this_machine().cpu, "versions": versions, "networks": rows}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        RESULT.with_suffix(".md").write_text(_table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
