"""Alignment of kernels: closed forms, a random basis, and what a floor covers."""

import numpy as np
import pytest
from scipy import stats

from paperlib.measures.alignment import alignment, centred, energy, energy_above, spectrum


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def kernel_of(count: int, rank: int) -> np.ndarray:
    features = random().standard_normal((count, rank))
    return features @ features.T


def test_all_eigenvectors_hold_all_of_a_signal_and_more_hold_no_less() -> None:
    _, vectors = spectrum(kernel_of(30, 40))
    for signal in (random().standard_normal(30), random().standard_normal((30, 4))):
        found = energy(vectors, signal, range(1, 31))
        assert found[-1] == pytest.approx(1, abs=1e-12)
        assert (np.diff(found) >= 0).all()


def test_the_first_eigenvector_lies_in_itself_alone() -> None:
    _, vectors = spectrum(kernel_of(30, 40))
    np.testing.assert_allclose(energy(vectors, vectors[:, 0], [1, 2]), 1, atol=1e-12)
    np.testing.assert_allclose(energy(vectors, vectors[:, 2], [2, 3]), [0, 1], atol=1e-12)


def test_a_random_basis_holds_as_a_beta_variable_says() -> None:
    n, k, draws = 20, 6, 4000
    signal = random().standard_normal(n)
    bases = stats.ortho_group.rvs(n, size=draws, random_state=1)
    found = np.array([energy(basis, signal, [k])[0] for basis in bases])
    law = stats.beta(k / 2, (n - k) / 2)
    assert law.mean() == pytest.approx(k / n)
    assert found.mean() == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(draws))
    assert found.var() == pytest.approx(law.var(), rel=0.1)


def test_there_is_no_energy_of_more_vectors_than_samples() -> None:
    found = energy(np.eye(3), np.ones(3), [1, 3, 4])
    np.testing.assert_allclose(found, [1 / 3, 1, np.nan])


def test_of_no_signal_no_share_is_said() -> None:
    assert np.isnan(energy(np.eye(3), np.zeros(3), [1])).all()
    assert alignment(np.zeros((3, 3)), np.ones(3)) == 0


def test_eigenvalues_fall_and_belong_to_their_vectors() -> None:
    kernel = kernel_of(12, 20)
    values, vectors = spectrum(kernel)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(kernel @ vectors, vectors * values, atol=1e-10)


def test_a_kernel_that_is_the_signals_is_aligned_and_the_unit_matrix_by_one_over_root_n() -> None:
    signal = random().standard_normal(25)
    assert alignment(np.outer(signal, signal), signal) == pytest.approx(1)
    assert alignment(np.eye(25), signal) == pytest.approx(1 / 5)
    columns = random().standard_normal((25, 3))
    assert alignment(columns @ columns.T, columns) == pytest.approx(1)


def test_alignment_is_the_cosine_of_matrices_and_has_no_scale() -> None:
    kernel, columns = kernel_of(9, 20), random().standard_normal((9, 2))
    target = columns @ columns.T
    plain = (kernel * target).sum() / np.sqrt((kernel**2).sum() * (target**2).sum())
    assert alignment(kernel, columns) == pytest.approx(plain, rel=1e-12)
    assert alignment(7 * kernel, 3 * columns) == pytest.approx(plain, rel=1e-12)


def test_a_centred_kernel_is_that_of_centred_features() -> None:
    features = random().standard_normal((11, 4)) + 3
    less = features - features.mean(0)
    np.testing.assert_allclose(centred(features @ features.T), less @ less.T, atol=1e-12)


def test_a_floor_takes_from_every_eigenvector_what_its_eigenvalue_does_not_exceed() -> None:
    kernel = np.diag([4.0, 2.0, 1.0])
    signal = np.array([1.0, 2.0, 3.0])
    expected = (1 * 4 / (4 + 2) + 4 * 2 / (2 + 2)) / 14
    assert energy_above(kernel, signal, 2, 2.0) == pytest.approx(expected)


def test_without_a_floor_to_speak_of_all_energy_is_above_it_and_below_a_high_one_none() -> None:
    kernel, signal = kernel_of(20, 30), random().standard_normal(20)
    whole = energy(spectrum(kernel)[1], signal, [5])[0]
    assert energy_above(kernel, signal, 5, 1e-9) == pytest.approx(whole)
    assert energy_above(kernel, signal, 5, 1e9) < 1e-5


def test_measures_change_no_argument() -> None:
    kernel, signal = kernel_of(8, 20), random().standard_normal(8)
    before = kernel.copy(), signal.copy()
    centred(kernel)
    alignment(kernel, signal)
    energy(spectrum(kernel)[1], signal, [3])
    energy_above(kernel, signal, 3, 0.1)
    np.testing.assert_array_equal(kernel, before[0])
    np.testing.assert_array_equal(signal, before[1])
