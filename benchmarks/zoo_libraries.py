"""More networks of other libraries, small where their sizes are options: what to call, and with inputs of what shapes.

An input is the shape of a tensor of random numbers, or a number: the one entry of a tensor of whole numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn
from zoo_models import Entry

Spec = tuple[str, str, dict[str, Any], tuple[Any, ...]]  # module, class or function, options, inputs

SMALL = {"image_size": 64, "patch_size": 16, "num_classes": 10, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128}
HEAD = SMALL | {"dim_head": 16}
FOUR = {"dim": (32, 64, 64, 128), "depth": (1, 1, 1, 1), "num_classes": 10}
WINDOWS = {"num_classes": 10, "dim": 32, "depth": (1, 1), "window_size": 7}
VIDEO = {k: v for k, v in HEAD.items() if k != "patch_size"}
VIDEO |= {"image_patch_size": 16, "frames": 8, "frame_patch_size": 2}
CLIP = ((1, 3, 8, 64, 64),)
WINDOWED = {"img_size": 64, "window_size": 8, "depths": [2, 2], "num_heads": [2, 2], "embed_dim": 32}
DOUBLED = WINDOWED | {"upsampler": "pixelshuffle", "upscale": 2}
ONE_HEAD = {"norm_num_groups": 8, "block_out_channels": (32, 64)}
CROSSED = ONE_HEAD | {"cross_attention_dim": 32, "attention_head_dim": 8}
FLAT = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8}


def _image(size: int, channels: int = 3) -> tuple[Any, ...]:
    return ((1, channels, size, size),)


def _vit(module: str, kind: str, options: dict[str, Any], inputs: tuple[Any, ...]) -> Spec:
    return f"vit_pytorch.{module}", kind, options, inputs


VIT_PYTORCH: dict[str, Spec] = {
    "vit": _vit("vit", "ViT", HEAD, _image(64)),
    "simple_vit": _vit("simple_vit", "SimpleViT", HEAD, _image(64)),
    "simple_vit_with_qk_norm": _vit("simple_vit_with_qk_norm", "SimpleViT", HEAD, _image(64)),
    "simple_flash_attn_vit": _vit("simple_flash_attn_vit", "SimpleViT", HEAD, _image(64)),
    "deepvit": _vit("deepvit", "DeepViT", HEAD, _image(64)),
    "cait": _vit("cait", "CaiT", HEAD | {"cls_depth": 2}, _image(64)),
    "parallel_vit": _vit("parallel_vit", "ViT", HEAD, _image(64)),
    "pit": _vit("pit", "PiT", HEAD | {"depth": (1, 1, 1), "patch_size": 8}, _image(64)),
    "xcit": _vit("xcit", "XCiT", HEAD | {"cls_depth": 2}, _image(64)),
    "vit_for_small_dataset": _vit("vit_for_small_dataset", "ViT", HEAD, _image(64)),
    "vit_with_patch_dropout": _vit("vit_with_patch_dropout", "ViT", HEAD, _image(64)),
    "rvt": _vit("rvt", "RvT", HEAD, _image(64)),
    "jumbo_vit": _vit("jumbo_vit", "JumboViT", HEAD, _image(64)),
    "normalized_vit": _vit("normalized_vit", "nViT", HEAD, _image(64)),
    "ats_vit": _vit("ats_vit", "ViT", HEAD | {"max_tokens_per_depth": (8, 8)}, _image(64)),
    "vit_3d": _vit("vit_3d", "ViT", VIDEO, CLIP),
    "vivit": _vit("vivit", "ViViT", {k: v for k, v in VIDEO.items() if k != "depth"} | {"spatial_depth": 2,
                  "temporal_depth": 2}, CLIP),
    "vit_1d": _vit("vit_1d", "ViT", {k: v for k, v in HEAD.items() if k != "image_size"} | {"seq_len": 64},
                   ((1, 3, 64),)),
    "cct": _vit("cct", "CCT", {"img_size": 64, "embedding_dim": 64, "num_layers": 2, "num_heads": 4, "mlp_ratio": 2,
                "num_classes": 10}, _image(64)),
    "crossformer": _vit("crossformer", "CrossFormer", FOUR, _image(224)),
    "cvt": _vit("cvt", "CvT", {"num_classes": 10, "s3_depth": 2}, _image(64)),
    "levit": _vit("levit", "LeViT", {"image_size": 128, "num_classes": 10, "dim": (64, 96, 128), "depth": 2,
                  "heads": (2, 3, 4), "mlp_mult": 2}, _image(128)),
    "max_vit": _vit("max_vit", "MaxViT", WINDOWS, _image(224)),
    "max_vit_with_registers": _vit("max_vit_with_registers", "MaxViT", WINDOWS, _image(224)),
    "mobile_vit": _vit("mobile_vit", "MobileViT", {"image_size": (128, 128), "dims": [48, 64, 80], "channels":
                       [16, 16, 24, 24, 48, 48, 64, 64, 80, 80, 160], "num_classes": 10}, _image(128)),
    "nest": _vit("nest", "NesT", {"image_size": 64, "patch_size": 4, "num_classes": 10, "dim": 32, "heads": 2,
                 "num_hierarchies": 3, "block_repeats": (1, 1, 1)}, _image(64)),
    "regionvit": _vit("regionvit", "RegionViT", FOUR, _image(224)),
    "scalable_vit": _vit("scalable_vit", "ScalableViT", {"num_classes": 10, "dim": 32, "heads": (2, 2, 2, 2),
                         "depth": (1, 1, 1, 1), "reduction_factor": (4, 4, 2, 1),
                         "window_size": (64, 32, None, None)}, _image(256)),
    "sep_vit": _vit("sep_vit", "SepViT", {"num_classes": 10, "dim": 32, "heads": (1, 2, 4), "depth": (1, 1, 1)},
                    _image(224)),
    "t2t": _vit("t2t", "T2TViT", {k: v for k, v in SMALL.items() if k != "patch_size"}, _image(64)),
    "twins_svt": _vit("twins_svt", "TwinsSVT", {"num_classes": 10, "s3_depth": 1, "s4_depth": 1, "s1_emb_dim": 32,
                      "s2_emb_dim": 64, "s3_emb_dim": 64, "s4_emb_dim": 128}, _image(224)),
    "cross_vit": _vit("cross_vit", "CrossViT", {"image_size": 96, "num_classes": 10, "sm_dim": 48, "lg_dim": 64,
                      "sm_enc_heads": 2, "lg_enc_heads": 2, "depth": 1, "lg_enc_depth": 1}, _image(96)),
    "look_vit": _vit("look_vit", "LookViT", {"image_size": 96, "num_classes": 10, "dim": 64, "depth": 2, "heads": 4,
                     "dim_head": 16}, _image(96)),
}  # fmt: skip

# Folder, file, class, options, inputs: (1, 3, 64, 64) where there is nothing.
SPANDREL: dict[str, tuple[str, str, dict[str, Any], tuple[Any, ...]]] = {
    "ATD": ("ATD", "atd_arch", {}, ()),
    "CRAFT": ("CRAFT", "CRAFT", {}, ()),
    "SRVGGNetCompact": ("Compact", "SRVGG", {}, ()),
    "DAT": ("DAT", "DAT", {}, ()),
    "DCTLSA": ("DCTLSA", "dctlsa", {}, ()),
    "DITN_Real": ("DITN", "DITN_Real", {}, ()),
    "DRCT": ("DRCT", "drct_arch", DOUBLED | {"window_size": 16, "embed_dim": 36}, ()),
    "DRUNet": ("DRUNet", "network_unet", {"in_nc": 3, "out_nc": 3}, ()),
    "DnCNN": ("DnCNN", "network_dncnn", {"in_nc": 3, "out_nc": 3}, ()),
    "RRDBNet": ("ESRGAN", "RRDB", {}, ()),
    "FBCNN": ("FBCNN", "FBCNN", {}, ()),
    "FDAT": ("FDAT", "fdat", {}, ()),
    "FFTformer": ("FFTformer", "fftformer_arch", {}, ()),
    "GRL": ("GRL", "grl", {}, ()),
    "HAT": ("HAT", "HAT", DOUBLED | {"window_size": 16}, ()),
    "CIDNet": ("HVICIDNet", "cidnet", {}, ()),
    "KBNet_s": ("KBNet", "kbnet_s", {}, ()),
    "MixDehazeNet": ("MixDehazeNet", "MixDehazeNet", {}, ()),
    "MoESR": ("MoESR", "MoESR", {}, ()),
    "MoSR": ("MoSR", "mosr_arch", {}, ()),
    "NAFNet": ("NAFNet", "NAFNet_arch", {}, ()),
    "OmniSR": ("OmniSR", "OmniSR", {}, ()),
    "PLKSR": ("PLKSR", "PLKSR", {}, ()),
    "RealPLKSR": ("PLKSR", "RealPLKSR", {}, ()),
    "RCAN": ("RCAN", "rcan_arch", {}, ()),
    "RGT": ("RGT", "rgt", {}, ()),
    "UpCunet2x": ("RealCUGAN", "upcunet_v3", {}, ()),
    "UpCunet4x": ("RealCUGAN", "upcunet_v3", {}, ()),
    "RestoreFormer": ("RestoreFormer", "restoreformer_arch", {}, ()),
    "RetinexFormer": ("RetinexFormer", "retinexformer_arch", {}, ()),
    "SCUNet": ("SCUNet", "SCUNet", {}, ()),
    "SeemoRe": ("SeemoRe", "seemore_arch", {}, ()),
    "Generator": ("SwiftSRGAN", "SwiftSRGAN", {}, ()),
    "Swin2SR": ("Swin2SR", "Swin2SR", DOUBLED, ()),
    "SwinIR": ("SwinIR", "SwinIR", WINDOWED, ()),
    "Uformer": ("Uformer", "Uformer", {}, _image(128)),
}
KORNIA: dict[str, Spec] = {
    "DexiNed": ("kornia.models.dexined", "DexiNed", {"pretrained": False}, _image(64)),
    "RRDBNet": ("kornia.models.rrdbnet", "RRDBNet", {"num_in_ch": 3, "num_out_ch": 3}, _image(32)),
    "VisionTransformer": ("kornia.models.vit", "VisionTransformer", {"image_size": 64, "embed_dim": 64, "depth": 2,
                          "num_heads": 4}, _image(64)),
    "MobileViT": ("kornia.models.vit_mobile", "MobileViT", {}, _image(256)),
    "YuNet": ("kornia.models.yunet", "YuNet", {"phase": "test", "pretrained": False}, _image(320)),
    "EfficientViT": ("kornia.models.efficient_vit.backbone", "efficientvit_backbone_b0", {}, _image(64)),
    "HardNet": ("kornia.feature", "HardNet", {"pretrained": False}, _image(32, 1)),
    "SOSNet": ("kornia.feature", "SOSNet", {"pretrained": False}, _image(32, 1)),
    "TFeat": ("kornia.feature", "TFeat", {"pretrained": False}, _image(32, 1)),
    "HyNet": ("kornia.feature", "HyNet", {"pretrained": False}, _image(32, 1)),
    "KeyNet": ("kornia.feature", "KeyNet", {"pretrained": False}, _image(64, 1)),
    "DISK": ("kornia.feature.disk", "DISK", {}, _image(64)),
}  # fmt: skip
TORCHAUDIO: dict[str, Spec] = {
    "Wav2Letter": ("torchaudio.models", "Wav2Letter", {"num_classes": 20, "input_type": "mfcc", "num_features": 40},
                   ((1, 40, 200),)),
    "DeepSpeech": ("torchaudio.models", "DeepSpeech", {"n_feature": 40, "n_hidden": 64, "n_class": 20},
                   ((1, 1, 30, 40),)),
    "ConvTasNet": ("torchaudio.models", "ConvTasNet", {"enc_num_feats": 64, "msk_num_feats": 32,
                   "msk_num_hidden_feats": 64, "msk_num_layers": 3, "msk_num_stacks": 1}, ((1, 1, 2000),)),
    "Conformer": ("torchaudio.models", "Conformer", {"input_dim": 80, "num_heads": 4, "ffn_dim": 128, "num_layers": 2,
                  "depthwise_conv_kernel_size": 31}, ((1, 40, 80), 40)),
    "Emformer": ("torchaudio.models", "Emformer", {"input_dim": 64, "num_heads": 4, "ffn_dim": 128, "num_layers": 2,
                 "segment_length": 4, "right_context_length": 1}, ((1, 17, 64), 17)),
    "HDemucs": ("torchaudio.models", "HDemucs", {"sources": ["a", "b"], "channels": 8}, ((1, 2, 44100),)),
    "WaveRNN": ("torchaudio.models", "WaveRNN", {"upsample_scales": [2, 2], "n_classes": 16, "hop_length": 4,
                "n_res_block": 2, "n_rnn": 32, "n_fc": 32, "n_freq": 20, "n_hidden": 16, "n_output": 16},
                ((1, 1, 64), (1, 1, 20, 20))),
}  # fmt: skip
DIFFUSERS: dict[str, tuple[str, dict[str, Any], tuple[Any, ...]]] = {
    "AutoencoderKL": ("AutoencoderKL", ONE_HEAD | {"down_block_types": ("DownEncoderBlock2D",) * 2,
                      "up_block_types": ("UpDecoderBlock2D",) * 2}, _image(32)),
    "UNet2D": ("UNet2DModel", ONE_HEAD | {"sample_size": 32, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
               "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}, (*_image(32), 3)),
    "UNet2DCondition": ("UNet2DConditionModel", CROSSED | {"sample_size": 16, "down_block_types": ("DownBlock2D",
                        "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")},
                        (*_image(16, 4), 3, (1, 7, 32))),
    "AutoencoderTiny": ("AutoencoderTiny", {"encoder_block_out_channels": (16,) * 3, "num_encoder_blocks": (1,) * 3,
                        "decoder_block_out_channels": (16,) * 3, "num_decoder_blocks": (1,) * 3}, _image(32)),
    "AutoencoderDC": ("AutoencoderDC", {"latent_channels": 4, "attention_head_dim": 8} | {
                      f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in (
                          ("block_out_channels", (16, 32)), ("layers_per_block", (1, 1)),
                          ("block_types", ("ResBlock", "EfficientViTBlock")), ("qkv_multiscales", ((), (5,))))},
                      _image(32)),
    "VQModel": ("VQModel", {"block_out_channels": (32,), "norm_num_groups": 8}, _image(32)),
    "DiT": ("DiTTransformer2DModel", FLAT | {"norm_num_groups": 4}, (*_image(8, 4), 3, 1)),
    "PixArt": ("PixArtTransformer2DModel", FLAT | {"caption_channels": 32, "cross_attention_dim": 64,
               "use_additional_conditions": False}, (*_image(8, 4), (1, 5, 32), 3)),
    "SD3": ("SD3Transformer2DModel", FLAT | {"patch_size": 2, "in_channels": 4, "joint_attention_dim": 32,
            "caption_projection_dim": 64, "pooled_projection_dim": 16, "out_channels": 4},
            (*_image(8, 4), (1, 5, 32), (1, 16), 3)),
}  # fmt: skip
PRETRAINED = (
    "bninception cafferesnet101 fbresnet152 inceptionresnetv2 inceptionv4 nasnetamobile resnext101_32x4d se_resnext50_"
    "32x4d senet154 xception"
)
DOCTR = {
    "classification": "vgg16_bn_r resnet18 resnet31 mobilenet_v3_small_r magc_resnet31 vit_s vip_tiny textnet_tiny",
    "detection": "db_resnet34 db_mobilenet_v3_large linknet_resnet18 fast_tiny",
    "recognition": "crnn_vgg16_bn crnn_mobilenet_v3_small sar_resnet31 master vitstr_small parseq viptr_tiny",
}
RECTANGLE = ((1, 3, 32, 128),)
# One of each of mmpretrain's families of classifiers; the side of the images where it is not 224.
MMPRETRAIN = (
    "beit-base conformer-tiny convmixer-1024 convnext-tiny convnextv2-tiny cspdarknet50 cspresnet50 cspresnext50 "
    "davit-tiny deit-tiny-distilled deit3-small densenet121 edgenext-xxsmall efficientformer-l1 efficientnet-b0 "
    "efficientnetv2-b0 hivit-tiny hornet-tiny hrnet-w18 inception-v3 levit-128s mixmim-base mlp-mixer-base "
    "mobilenet-v2 mobilenet-v3-small mobileone-s0 mobilevit-xxsmall mvitv2-tiny poolformer-s12 pvig-tiny regnetx-400mf "
    "repmlp-base repvgg-a0 res2net50 resnet18_8xb16_cifar resnet50_8xb32 resnetv1d50 resnext50 revvit-small "
    "riformer-s12 seresnet50 shufflenet-v1 shufflenet-v2 swin-tiny swinv2-tiny-w16 t2t-vit-t-14 tinyvit-5m tnt-small "
    "twins-pcpvt-small twins-svt-small van-tiny vgg11bn vig-tiny vit-base-p16 wide-resnet50 xcit-nano-12-p16"
)
MM_SIZES = {"swinv2-tiny-w16": 256, "resnet18_8xb16_cifar": 32}
# The smallest of each of birder's classes; not of MogaNet, whose answer overflows with these random weights.
BIRDER = (
    "acb_resnet_v1_18 alexnet biformer_t vit_t14 cait_xxs24 cas_vit_xs coat_tiny hornet_tiny_7x7 conv2former_n "
    "convmixer_768_32 convnext_v1_atto convnext_v1_iso_small convnext_v2_atto cpubone_n crossformer_t crossvit_t "
    "csp_resnext_50 cspnext_t cswin_transformer_t darknet_17 davit_tiny deit_t16 densenet_121 dpn_92 xcit_nano12_p8 "
    "edgenext_xxs edgevit_xxs efficientformer_v1_l1 efficientformer_v2_s0 efficientmod_xxs efficientnet_lite0 "
    "efficientnet_v1_b0 efficientnet_v2_s efficientvim_m1 efficientvit_mit_b0 efficientvit_msft_m0 fasternet_t0 "
    "mobileone_s1 replknet_31b fastvit_t8 flexivit_reg1_s16_rms_ls focalnet_t_srf gc_vit_xxt ghostnet_v1_0_5 "
    "ghostnet_v2_1_0 ghostnet_v3_0_5 groupmixformer_mobile hgnet_v1_tiny hgnet_v2_b0 hiera_abswin_tiny "
    "hieradet_d_tiny iformer_s inception_next_a inception_resnet_v1 inception_resnet_v2 inception_v3 inception_v4 "
    "levit_128s lit_v1_s lit_v1_t lit_v2_s mambaout_femto maxvit_t poolformer_v2_s12 shvit_s1 microvit_v1_s1 "
    "microvit_v2_s1 mnasnet_0_5 mobilenet_v1_0_25 mobilenet_v2_0_25 mobilenet_v3_small_0_25 mobilenet_v4_s "
    "mobilenet_v4_hybrid_m mobilevit_v1_xxs mobilevit_v2_0_25 mvit_v1_s_d16 mvit_v2_t naflex_vit_t16 rope_vit_t14 "
    "naflex_rope_vit_t16 nextvit_s nfnet_f0 pit_t pnasnet_mobile pvt_v1_t pvt_v2_b0_li rdnet_t regionvit_t "
    "regnet_x_200m regnet_z_500m repghost_0_5 repvgg_a0 repvit_m0_6 resmlp_12 resnest_14 resnet_v1_18 resnet_v2_18 "
    "resnext_50 rexnet_1_0 rexnet_lite_1_0 rope_flexivit_s16 rope_vit5_reg4_t16 vit_moe_t16_4e1s_2c_last1_avg "
    "rope_vit_moe_t16_4e1s_2c_last1_avg sequencer2d_s shufflenet_v1_4 shufflenet_v2_0_5 simple_vit_s14 smt_t "
    "squeezenet squeezenext_0_5 starnet_esm05 swiftformer_xs swin_transformer_v1_t swin_transformer_v2_t tiny_vit_5m "
    "uniformer_s unireplknet_a van_b0 vgg_11 vgg_reduced_11 vit_parallel_s16_18x2_ls_avg vit_windowed_reg1_s14_ls "
    "vit_det_s16 volo_d1 vovnet_v1_27s vovnet_v2_19 wide_resnet_50 xception transnext_micro"
)


def _doctr(part: str, name: str) -> Spec:
    inputs = {"classification": RECTANGLE if name == "vip_tiny" else _image(32), "detection": _image(128)}
    more = {} if part == "classification" else {"pretrained_backbone": False, "exportable": True}
    return f"doctr.models.{part}", name, {"pretrained": False} | more, inputs.get(part, RECTANGLE)


def specs() -> Iterator[tuple[str, str, Spec]]:
    """Library, name and what to call of every network."""
    for name, spec in VIT_PYTORCH.items():
        yield "vit-pytorch", name, spec
    for name, (folder, file, options, inputs) in SPANDREL.items():
        yield "spandrel", name, (f"spandrel.architectures.{folder}.__arch.{file}", name, options, inputs or _image(64))
    for name, spec in KORNIA.items():
        yield "kornia", name, spec
    for part, names in DOCTR.items():
        for name in names.split():
            yield "python-doctr", name, _doctr(part, name)
    for name, spec in TORCHAUDIO.items():
        yield "torchaudio", name, spec
    for name, (kind, options, inputs) in DIFFUSERS.items():
        yield "diffusers", name, ("diffusers", kind, options, inputs)
    for name in PRETRAINED.split():
        size = 299 if name in ("inceptionresnetv2", "inceptionv4", "xception") else 224
        yield "pretrainedmodels", name, ("pretrainedmodels.models", name, {"pretrained": None}, _image(size))
    for name, size in (("PNet", 32), ("RNet", 24), ("ONet", 48)):
        yield "facenet-pytorch", name, ("facenet_pytorch", name, {"pretrained": False}, _image(size))
    yield "facenet-pytorch", "InceptionResnetV1", ("facenet_pytorch", "InceptionResnetV1", {}, _image(160))
    yield "resnest", "resnest50", ("resnest.torch", "resnest50", {"pretrained": False}, _image(64))


def libraries() -> Iterator[Entry]:
    """All networks of these libraries."""
    os.environ["USE_TORCH"] = "1"  # python-doctr asks for it
    for library, name, spec in specs():
        yield Entry(library, name, partial(_made, *spec), library)
    for name in BIRDER.split():
        yield Entry("birder", name, partial(_birder, name), "birder")
    for name in MMPRETRAIN.split():
        yield Entry("mmpretrain", name, partial(_mmpretrain, name), "mmpretrain")


def _birder(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    made = import_module("birder.model_registry").registry.net_factory(name, 100)
    return made.requires_grad_(), (torch.randn(1, 3, *made.size),)


def _mmpretrain(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The first of its networks with that beginning, as OpenMMLab configures it."""
    library = import_module("mmpretrain")
    made = library.get_model(library.list_models(f"{name}*")[0], pretrained=False, device="cpu")
    return made.requires_grad_(), (torch.randn(1, 3, *2 * [MM_SIZES.get(name, 224)]),)


def _made(
    module: str, kind: str, options: dict[str, Any], inputs: tuple[Any, ...]
) -> tuple[nn.Module, tuple[Any, ...]]:
    made = getattr(import_module(module), kind)(**options)
    return made.requires_grad_(), tuple(torch.tensor([i]) if isinstance(i, int) else torch.randn(i) for i in inputs)
