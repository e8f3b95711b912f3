"""A wheel must hold exactly shoal's rooms, their shipped recipes, and the console script."""

import sys
import zipfile

ROOMS = {"adapters", "cluster", "launcher", "recipes", "trainer"}

with zipfile.ZipFile(sys.argv[1]) as wheel:
    names = wheel.namelist()
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == ROOMS, f"top level is {sorted(top)}"
    for recipe in ("quickstart", "reviews_zh", "starter"):
        assert f"recipes/{recipe}.yaml" in names, f"recipes/{recipe}.yaml is missing"
    assert "launcher/inspection/page.html" in names, "the page of shoal inspect is missing"
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "shoal = launcher.cli:main" in wheel.read(entry).decode()
print(f"{sys.argv[1]}: {len(names)} files, as they should be")
