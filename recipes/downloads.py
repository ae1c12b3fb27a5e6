"""Downloads of public data, which the recipes share."""

import contextlib
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path


def download(url: str, path: Path) -> None:
    """Downloads a file. Called again, it continues a download that broke off.

    Raises:
        OSError: If the download breaks off.
    """
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with open(partial, "ab") as file:
        with contextlib.suppress(ImportError):  # only Unix has such locks
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                message = f"{path} is being downloaded by another process: wait for it"
                raise OSError(message) from error
        request = urllib.request.Request(url, headers={"Range": f"bytes={file.tell()}-"})
        print(f"downloading {url} from byte {file.tell():,}", file=sys.stderr)
        try:
            response = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            # The range begins at the end: the file was complete, but not yet renamed.
            if error.code != 416 or error.headers["Content-Range"] != f"bytes */{file.tell()}":
                raise
        else:
            with response:
                if response.status != 206:  # the server sends the whole file, not its end
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
    """Downloads the files of {path: url} that do not exist yet."""
    for path, url in files.items():
        if not path.exists():
            download(url, path)
