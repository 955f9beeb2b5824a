"""The networks of the zoo: all of torchvision's kinds, and one of every timm model family, with random weights.

Every parameter and statistic is drawn at random and none is zero or one throughout, since a zero-initialised layer
would hide a wrong cut behind it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TIMM = {
    "beit": "beit_base_patch16_224", "byoanet": "halonet_h1", "byobnet": "mobileone_s1", "cait": "cait_xxs24_224",
    "coat": "coat_tiny", "convit": "convit_tiny", "convmixer": "convmixer_768_32", "convnext": "convnextv2_atto",
    "cpubone": "cpubone_nano", "crossvit": "crossvit_9_240", "csatv2": "csatv2", "cspnet": "cs3darknet_s",
    "cspnext": "cspnext_tiny", "davit": "davit_tiny", "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_distilled_patch16_224", "densenet": "densenet121", "dla": "dla46x_c", "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small", "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "efficientnet_lite0", "efficientvim": "efficientvim_m1", "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0", "eva": "eva02_tiny_patch14_224", "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8", "focalnet": "focalnet_tiny_srf", "gcvit": "gcvit_xxtiny", "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050", "hardcorenas": "hardcorenas_a", "hgnet": "hgnetv2_b0", "hiera": "hiera_tiny_224",
    "hieradet_sam2": "hieradet_small", "hrnet": "hrnet_w18_small", "iformer": "iformer_t",
    "inception_next": "inception_next_atto", "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4", "lcnetv2": "lcnetv2_small", "levit": "levit_128s", "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto", "maxxvit": "coatnet_pico_rw_224", "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224", "mobilenetv3": "mobilenetv3_small_050", "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs", "mvitv2": "mvitv2_tiny", "naflexvit": "naflexvit_base_patch16_gap",
    "nasnet": "nasnetalarge", "nest": "nest_tiny", "nextvit": "nextvit_small", "nfnet": "nf_regnet_b0",
    "pit": "pit_ti_224", "pnasnet": "pnasnet5large", "pvt_v2": "pvt_v2_b0", "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny", "regnet": "regnety_004", "repghost": "repghostnet_050", "repvit": "repvit_m1",
    "res2net": "res2net50_26w_4s", "resnest": "resnest14d", "resnet": "resnet18", "resnetv2": "resnetv2_50x1_bit",
    "rexnet": "rexnet_100", "selecsls": "selecsls42", "senet": "legacy_seresnet18", "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1", "sknet": "skresnet18", "starnet": "starnet_s050", "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224", "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224", "tiny_vit": "tiny_vit_5m_224", "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m", "twins": "twins_svt_small", "vgg": "vgg11_bn", "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224", "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_relpos_small_patch16_224", "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224", "volo": "volo_d1_224", "vovnet": "ese_vovnet19b_dw", "xception": "legacy_xception",
    "xception_aligned": "xception41", "xcit": "xcit_nano_12_p16_224",
}  # fmt: skip

# Where 64 pixels are too few for the architecture, or its size is part of it.
_SIZES = {"inception_v3": 96, "maxvit_t": 224}


@dataclass(frozen=True, slots=True)
class Entry:
    """One network of the zoo: `kind` is the table it belongs to, `make` builds it with its example input."""

    kind: str
    name: str
    make: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    family: str = ""


def _images(batch: int, size: int, *, channels: int = 3) -> tuple[Tensor, ...]:
    return (torch.randn(batch, channels, size, size),)


def _classifier(name: str, batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    size = _SIZES.get(name, 64)
    if name.startswith("vit_"):
        size = options["image_size"] = 56 if name.endswith("14") else 64
    return torchvision.models.get_model(name, weights=None, **options), _images(batch, size)


def _segmentation(name: str, batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    import torchvision

    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, **options)
    return model, _images(batch, 64)


def _video(name: str, batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    import torchvision

    frames, size = (16, 224) if name.startswith(("mvit", "s3d")) else (8, 64)
    return torchvision.models.get_model(name, weights=None), (torch.randn(batch, 3, frames, size, size),)


def _flow(name: str, batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    import torchvision

    return torchvision.models.get_model(name, weights=None), _images(batch, 128) + _images(batch, 128)


def _detector(name: str, _batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    import torchvision

    options: dict[str, Any] = {"min_size": 128, "max_size": 160} if "ssd" not in name else {}
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, **options)
    for part in (model, getattr(model, "roi_heads", model)):
        part.score_thresh = 0.0  # with random weights nothing would be found, and nothing compared
    return model, ([torch.rand(3, 128, 128)],)


def _backbone(name: str, batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    size = 300 if name.startswith("ssd300") else 128
    return _detector(name, batch)[0].backbone, _images(batch, size)  # type: ignore[return-value]


def _timm(name: str, batch: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """Build it for 128 pixels where it can be, else for the next size that it takes."""
    import timm

    full = timm.get_pretrained_cfg(name).input_size if timm.get_pretrained_cfg(name) else (3, 224, 224)
    problem: Exception | None = None
    for size in (128, 160, 192, 224, 256, full[-1]):
        for options in ({"img_size": size, "num_classes": 1000}, {"num_classes": 1000}):
            try:
                with warnings.catch_warnings(), torch.device("meta"):
                    warnings.simplefilter("ignore")
                    timm.create_model(name, pretrained=False, **options).eval()(torch.empty(batch, full[0], size, size))
            except Exception as error:  # noqa: BLE001 - the next size may do
                problem = error
                continue
            return timm.create_model(name, pretrained=False, **options), _images(batch, size, channels=full[0])
    model = timm.create_model(name, pretrained=False, num_classes=1000)
    if not isinstance(problem, (TypeError, NotImplementedError)):
        model.eval()(torch.randn(batch, *full))  # meta tensors may be what fails, not the size
    return model, (torch.randn(batch, *full),)


def entries() -> Iterator[Entry]:
    """All networks of the zoo, in the order of its tables."""
    import torchvision

    kinds = {
        "torchvision classification": (torchvision.models, _classifier),
        "torchvision segmentation": (torchvision.models.segmentation, _segmentation),
        "torchvision video": (torchvision.models.video, _video),
        "torchvision optical flow": (torchvision.models.optical_flow, _flow),
        "torchvision detection": (torchvision.models.detection, _detector),
        "torchvision detection backbone": (torchvision.models.detection, _backbone),
    }
    for kind, (module, make) in kinds.items():
        yield from _of(kind, [(name, "") for name in torchvision.models.list_models(module=module)], make)
        if kind == "torchvision classification":
            yield from _of("timm", [(name, family) for family, name in TIMM.items()], _timm)


def _of(kind: str, names: list[tuple[str, str]], make: Callable[[str, int], Any]) -> Iterator[Entry]:
    for name, family in names:
        yield Entry(kind, name, lambda name=name: make(name, 2), family)


def find(kind: str, name: str) -> Entry:
    """Return the entry of that kind and name, among the zoo's own or those of other libraries."""
    from zoo_others import entries as others

    return next(e for e in (*entries(), *others()) if e.kind == kind and e.name == name)


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Give every parameter and running statistic random values none of which hides what comes before it."""
    weights = {id(m.weight) for m in module.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))}
    for p in module.parameters():
        if id(p) in weights or p.dim() == 2:
            p.normal_(0, (1.6 / (p.numel() / p.shape[0])) ** 0.5)
        elif p.dim() >= 2:
            p.normal_(0.1, 0.5)
        elif p.abs().max() == 0:
            p.normal_(0, 0.1)
        elif p.numel() == 1 or p.std() < 1e-6:
            p.uniform_(0.5, 1.5)
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._NormBase) and m.running_mean is not None:
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        elif type(m).__name__ == "FrozenBatchNorm2d":
            m.running_mean.normal_(0, 0.1)  # type: ignore[operator, union-attr]
            m.running_var.uniform_(0.5, 1.5)  # type: ignore[operator, union-attr]
            m.weight.uniform_(0.5, 1.5)  # type: ignore[operator, union-attr]
