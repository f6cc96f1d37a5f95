"""Settings: defaults without a file, and a message that names the line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from moetui.errors import EXIT_USAGE
from moetui.settings import Settings, SettingsError, load_settings, settings_path


def test_no_file_means_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "none.toml") == Settings()


def test_everything_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        '# mine\nexport_dir = "~/out"\ntheme = "light"\nmax_tokens = 5\n'
        'model_folders = ["~/models", "/data/models"]\n[keys]\nquit = "ctrl+x"\n'
    )
    assert load_settings(path) == Settings(
        export_dir=Path("~/out").expanduser(),
        theme="light",
        max_tokens=5,
        model_folders=(Path("~/models").expanduser(), Path("/data/models")),
        keys={"quit": "ctrl+x"},
        source=path,
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('\ntheem = "dark"', "line 2: unknown setting 'theem'", "did you mean 'theme'?"),
        ('theme = "blue"', "line 1: theme cannot be 'blue'", '"dark" or "light"'),
        ("max_tokens = -1", "max_tokens cannot be -1", "whole number"),
        ("max_tokens = true", "max_tokens cannot be True", "whole number"),
        ("max_tokens = 1.5", "max_tokens cannot be 1.5", "whole number"),
        ("export_dir = 3", "export_dir must be text", "export_dir ="),
        ('export_dir = ""', "export_dir must be text", "export_dir ="),
        ('model_folders = "~/models"', "line 1: model_folders must be a list", "model_folders = ["),
        ('\nmodel_folders = ["a", 3]', "line 2: model_folders must be a list", "model_folders = ["),
        ('model_folders = [""]', "model_folders must be a list", "[] looks nowhere"),
        ('model_folder = ["a"]', "unknown setting 'model_folder'", "'model_folders'"),
        ("keys = 3", "keys must be a table", "[keys]"),
        ("[keys]\nquit = 3", "line 2: the keys of 'quit' must be text", "quit ="),
        ("theme = \n", "line 1", "theme ="),
        ('theme = "dark"\ntheme = "dark"', "line 2", "theme ="),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == EXIT_USAGE


def test_models_are_looked_for_below_home_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().model_folders == (tmp_path / "models",)
    path = tmp_path / "settings.toml"
    path.write_text("model_folders = []\n")
    assert load_settings(path).model_folders == ()


def test_the_home_of_nobody_is_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('export_dir = "~no-such-user/out"\nmodel_folders = ["~no-such-user/models"]\n')
    settings = load_settings(path)
    assert settings.export_dir is not None and not settings.export_dir.exists()
    assert not any(folder.exists() for folder in settings.model_folders)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings(path)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings"):
        load_settings(tmp_path)


def test_the_file_is_in_the_platforms_folder_or_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MOETUI_SETTINGS", raising=False)
    assert settings_path().name == "settings.toml"
    assert settings_path().parent.name == "moetui"
    monkeypatch.setenv("MOETUI_SETTINGS", str(tmp_path / "x.toml"))
    assert settings_path() == tmp_path / "x.toml"
