"""Certificates for tests, made by the openssl command. Knows: that command. Does not know: servers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def made(*arguments: str) -> None:
    """Run openssl; a machine without it skips the test."""
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("openssl is not installed")
    subprocess.run([found, *arguments], check=True, capture_output=True)


def self_signed(folder: Path, name: str, days: int = 365) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    made(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days)),
        *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key
