"""Fetching public data, once; the recipes share this."""

import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path


def download(url: str, path: Path) -> None:
    """Fetches a file; a download that broke off is continued when called again.

    Raises:
        OSError: If it broke off.
    """
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with open(partial, "ab") as file:
        request = urllib.request.Request(url, headers={"Range": f"bytes={file.tell()}-"})
        print(f"downloading {url} from byte {file.tell():,}", file=sys.stderr)
        try:
            response = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            # Nothing lies past the end: it was complete, but not yet renamed.
            if error.code != 416 or error.headers["Content-Range"] != f"bytes */{file.tell()}":
                raise
        else:
            with response:
                if response.status != 206:  # the whole file, although only its end was asked for
                    file.truncate(file.seek(0))
                expected = file.tell() + int(response.headers["Content-Length"])
                shutil.copyfileobj(response, file, 2**20)
            if file.tell() != expected:
                raise OSError(
                    f"{url} broke off at byte {file.tell():,} of {expected:,}: the same command "
                    "again continues there"
                )
    partial.replace(path)


def download_missing(files: dict[Path, str]) -> None:
    """Fetches the files that are not there yet, given as {path: url}."""
    for path, url in files.items():
        if not path.exists():
            download(url, path)
