import pickle

import pytest

from unetkit import errors


@pytest.mark.parametrize(
    ("kind", "code", "builtin"),
    [
        (errors.UsageError, 2, ValueError),
        (errors.InputError, 3, ValueError),
        (errors.MissingError, 3, FileNotFoundError),
        (errors.LabelError, 3, ValueError),
        (errors.OutputError, 4, FileExistsError),
        (errors.ResourceError, 5, RuntimeError),
        (errors.OutOfMemoryError, 5, errors.ResourceError),
        (errors.NonFiniteError, 6, ArithmeticError),
        (errors.CheckError, 7, RuntimeError),
        (errors.UnavailableError, 75, ConnectionError),
    ],
)
def test_each_class_has_its_exit_code_its_sentence_and_a_builtin(kind, code, builtin):
    error = kind("tile must be a multiple of 16, got 500; try 496 or 512")
    assert error.exit_code == code
    assert isinstance(error, builtin)
    assert str(error) == "tile must be a multiple of 16, got 500; try 496 or 512"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


def test_a_signal_ends_with_128_and_its_number_also_after_a_journey():
    stopped = errors.StoppedError("stopped after 3 of 9 tiles; go on with --resume", signal=15)
    again = pickle.loads(pickle.dumps(stopped))
    assert stopped.exit_code == again.exit_code == 143
    assert str(again) == str(stopped)


def test_every_class_is_in_the_tree():
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    assert all(issubclass(c, errors.UnetkitError) for c in classes if issubclass(c, Exception))
    assert all(c.__name__ in errors.__doc__ for c in classes if issubclass(c, Exception))


def test_plugins_may_use_the_names_of_before():
    from unetkit.errors import NumbersError, SurroundingsError, TryAgainError

    assert [NumbersError.code, SurroundingsError.code, TryAgainError.code] == [6, 5, 75]
