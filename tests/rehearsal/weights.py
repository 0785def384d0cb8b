"""Random weights in the forms in which users have the real ones."""

from __future__ import annotations

from pathlib import Path

from discovla.storage.files import atomic_path, sha256_file


def write_openai_archive(path: Path, architecture: str = "ViT-B-32-quickgelu") -> str:
    """Save a random CLIP as OpenAI ships them: a TorchScript archive, big matrices in half.

    Returns:
        sha256 of the file.
    """
    import open_clip
    import torch
    from torch import nn

    class Node(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.manual_seed(0)
    clip = open_clip.create_model(architecture)
    root = Node()
    for name, tensor in clip.state_dict().items():
        node = root
        *parents, leaf = name.split(".")
        if leaf == "attn_mask":
            continue
        for part in parents:
            if part not in dict(node.named_children()):
                node.add_module(part, Node())
            node = node.get_submodule(part)
        half = tensor.dim() > 1 and "embedding" not in name and "ln_" not in name
        node.register_parameter(leaf, nn.Parameter(tensor.half() if half else tensor.clone()))
    for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(value))
    with atomic_path(path) as temporary:
        torch.jit.save(torch.jit.script(root.eval()), str(temporary))
    return sha256_file(path)


def write_random_llava(folder: Path) -> None:
    """Save a random tiny LLaVA-NeXT of transformers' real classes with its processor."""
    import torch

    from discovla.demo.llava_model import build_llava, build_processor

    torch.manual_seed(0)
    processor = build_processor()
    build_llava(len(processor.tokenizer)).save_pretrained(folder)
    processor.save_pretrained(folder)
