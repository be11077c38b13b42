"""Which versions of packages are installed, without importing them; also a program, for asking another Python.

Standard library only, and syntax that old Pythons understand: the Python asked may be any.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import sys


def installedVersions(names):
    """Package name -> version, None if it is not installed, "" if nobody knows the version.

    A package counts where it can be imported; what an interrupted removal left behind does not.
    """
    importlib.invalidate_caches()
    return {name: _version(name) for name in names}


def _version(name):
    specification = importlib.util.find_spec(name)
    if specification is None or specification.origin is None:
        return None
    try:
        return importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    print(json.dumps({"python": list(sys.version_info[:3]), "packages": installedVersions(sys.argv[1:])}))
