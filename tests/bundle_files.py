"""Changes to the files of a bundle."""

from pathlib import Path

from polymodal.model.digest import file_sha256


def update_sums(bundle: Path) -> None:
    """Record the digests of a changed bundle again, so that a change is not rejected for its digest."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{file_sha256(file)}  {file.relative_to(bundle).as_posix()}\n" for file in files]
    (bundle / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def write_aligned(bundle: Path, out: Path, *, width: int = 16, seed: int = 0) -> None:
    """Write a copy of a bundle with alignment heads of random weights, as if they were trained, and a `match` for image~text."""
    import torch

    from polymodal.model.bundle import compress_weights, read_bundle, write_bundle
    from polymodal.model.config import AlignmentConfig, MatchConfig
    from polymodal.model.runtimes.torch_runtime import load_network
    from polymodal.model.training.export import export_graphs

    torch.manual_seed(seed)
    read, alignment = read_bundle(bundle), AlignmentConfig(width=width)
    network = load_network(read)
    network.align(alignment)
    match = MatchConfig(slope=4.0, intercept=-1.0, threshold=0.5)
    with_heads = read.config.network.model_copy(update={"alignment": alignment})
    write_bundle(
        out,
        config=read.config.model_copy(update={"network": with_heads, "matches": {"image~text": match}}),
        inputs=read.inputs,
        weights=compress_weights(
            {name: weight.numpy() for name, weight in network.state_dict().items() if weight.is_floating_point()}
        ),
        graphs=export_graphs(network, read.inputs, with_heads.width),
        report=read.report,
        golden=[dict(entry) for entry in read.golden],
        card=read.card,
    )
