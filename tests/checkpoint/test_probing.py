from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, named_normalization, probe
from compressor.core.errors import AmbiguousCheckpointError
from compressor.core.types import ModelSpec
from compressor.models.classifier import Classifier

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "../shared/checkpoints/wrn16-4-nfgsm.pt"
PICTURES = ROOT / "data/cifar10-jpeg/test"


class Brightness(nn.Module):
    """A network whose logits are an affine function of the mean input: its right normalisation is known exactly."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x):
        brightness = x.mean((1, 2, 3)) - self.threshold
        return torch.stack([-brightness, brightness], 1)


def loaded_with(network, *normalizations):
    specs = tuple(ModelSpec("resnet18", 2, normalization=named_normalization(name)) for name in normalizations)
    classifier = Classifier(specs[0], network).eval()
    return LoadedCheckpoint(classifier, specs[0], {}, "", (), specs if len(specs) > 1 else ())


def grey(levels):
    return torch.tensor(levels).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()


LEVELS = [i / 200 for i in range(200)]
LABELS = torch.tensor([int(level > 0.5) for level in LEVELS])


def test_the_normalisation_that_fits_is_chosen_wherever_it_stands():
    # On [-1, 1] the threshold 0 is the right one; on raw images everything is brighter than 0.
    result = probe(loaded_with(Brightness(0.0), "none", "half"), grey(LEVELS), LABELS)
    assert result.spec == result.classifier.spec
    assert result.spec.normalization == named_normalization("half")
    assert [m.accuracy for m in result.measurements] == [1.0, pytest.approx(0.5, abs=0.01)]
    assert [m.samples for m in result.measurements] == [200, 200]


def test_bytes_and_floats_are_the_same_images():
    images = (grey(LEVELS) * 255).round().to(torch.uint8)
    loaded = loaded_with(Brightness(0.0), "none", "half")
    floats = probe(loaded, images.float() / 255, LABELS).measurements
    assert probe(loaded, images, LABELS, batch_size=7).measurements == floats


def test_two_candidates_that_do_equally_well_are_refused():
    # The threshold lies far inside a gap that no image falls into: both normalisations judge all images alike.
    loaded = loaded_with(Brightness(0.2), "none", "half")
    images, labels = grey([0.05] * 50 + [0.95] * 50), torch.tensor([0] * 50 + [1] * 50)
    with pytest.raises(AmbiguousCheckpointError, match="equally well") as caught:
        probe(loaded, images, labels)
    assert "--teacher-normalization" in caught.value.hint
    assert "--teacher-activation" not in caught.value.hint


def test_a_lead_that_few_images_give_is_refused_and_many_settle_it():
    loaded = loaded_with(Brightness(0.45), "none", "half")
    # With threshold 0.45, raw is right on all images; on [-1, 1] those between 0.45 and 0.725 are wrong: 1 in 5.
    levels = [0.1, 0.2, 0.6, 0.9, 0.95]
    labels = torch.tensor([0, 0, 1, 1, 1])
    with pytest.raises(AmbiguousCheckpointError, match="equally well"):
        probe(loaded, grey(levels * 5), labels.repeat(5))
    assert probe(loaded, grey(levels * 20), labels.repeat(20)).spec.normalization is None


def test_a_lead_below_3_points_is_refused_however_many_images_give_it():
    levels, labels = [0.1] * 490 + [0.9] * 490 + [0.6] * 20, torch.tensor([0] * 490 + [1] * 510)
    with pytest.raises(AmbiguousCheckpointError, match=r"100\.0 %.*98\.0 %"):
        probe(loaded_with(Brightness(0.45), "none", "half"), grey(levels), labels)


def test_candidates_that_are_one_function_are_no_question():
    class Sorted(Brightness):
        def forward(self, x):
            rank = torch.searchsorted(x.mean((1, 2, 3)).sort().values, x.mean((1, 2, 3)))
            return super().forward((rank > 99.5).float().reshape(-1, 1, 1, 1))

    # Ranks do not change under an increasing map, so every normalisation gives the same logits.
    result = probe(
        loaded_with(Sorted(0.5), "none", "half"), grey([i / 200 for i in range(200)]), LABELS, batch_size=200
    )
    assert result.spec.normalization is None
    assert len({measurement.correct for measurement in result.measurements}) == 1


@pytest.mark.parametrize("normalizations", [("none",), ("none", "half")])
def test_a_teacher_near_chance_is_refused_with_its_figure(normalizations):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (200,), generator=generator)
    with pytest.raises(AmbiguousCheckpointError, match=r"at most \d\d\.\d % of 200 images.*guessing") as caught:
        probe(loaded_with(Brightness(0.5), *normalizations), grey(LEVELS), labels)
    assert "--data" in caught.value.hint
    assert ("--teacher-normalization" in caught.value.hint) == (len(normalizations) > 1)


def test_the_checkpoint_is_left_as_it_was():
    loaded = loaded_with(Brightness(0.0), "none", "half")
    before = {key: tensor.clone() for key, tensor in loaded.classifier.state_dict().items()}
    probe(loaded, grey(LEVELS), LABELS)
    assert loaded.classifier.spec.normalization is None
    assert all(torch.equal(tensor, before[key]) for key, tensor in loaded.classifier.state_dict().items())


def test_no_images_is_the_caller_s_mistake():
    with pytest.raises(ValueError, match="0 images"):
        probe(loaded_with(Brightness(0.0), "none"), torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))


def test_a_deepmind_file_is_probed_with_both_activations(tmp_path, state_of):
    torch.save(state_of("dm-wideresnet-10-1", 3), tmp_path / "teacher.pt")
    loaded = load_checkpoint(tmp_path / "teacher.pt")
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    # Labels of the classifier that is last among the candidates: it must win, with all its answers right.
    spec = loaded.open_questions[-1]
    assert spec.activation == "relu"
    right = load_checkpoint(tmp_path / "teacher.pt", normalization="half", activation="relu").classifier
    with torch.no_grad():
        logits = right(images)
        # Untrained, it answers one class for all; centring the bias on these images spreads its answers.
        loaded.classifier.network.logits.bias -= logits.mean(0)
        labels = (logits - logits.mean(0)).argmax(1)
    result = probe(loaded, images, labels)
    assert result.spec == spec
    assert len(result.measurements) == 6
    assert result.measurements[0].correct == 60


@pytest.mark.skipif(not TEACHER.is_file() or not PICTURES.is_dir(), reason="needs the shared teacher and the pictures")
def test_the_real_teacher_is_found_to_take_raw_images():
    paths = [
        (path, label)
        for label, folder in enumerate(sorted(PICTURES.iterdir()))
        for path in sorted(folder.iterdir())[:20]
    ]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in paths])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    labels = torch.tensor([label for _, label in paths])
    result = probe(load_checkpoint(TEACHER), images, labels)
    assert result.spec == ModelSpec("wideresnet-16-4", 10)
    # 66.85 % on all 10,000; three standard errors of 200 images are 10 points.
    assert abs(result.measurements[0].accuracy - 0.6685) < 0.1
    assert result.measurements[1].accuracy < result.measurements[0].accuracy - 0.1
