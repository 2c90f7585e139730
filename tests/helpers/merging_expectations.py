"""How merging_expected.json came about: mergekit 0.1.5's own numbers for small tensors anyone can make again.

Run by hand where mergekit is installed (``pip install --no-deps mergekit==0.1.5 immutables``), not by the tests:

    python tests/helpers/merging_expectations.py > tests/merging/merging_expected.json
"""

import json

import torch

CASES = {
    "linear": {"method": "linear", "parameters": {"weight": [1.0, 3.0, 0.5]}, "models": 3, "base": False},
    "slerp": {"method": "slerp", "parameters": {"t": 0.3}, "models": 2, "base": False},
    "task_arithmetic": {
        "method": "task_arithmetic",
        "parameters": {"weight": [0.7, 0.4], "lambda": 0.8},
        "models": 2,
        "base": True,
    },
    "ties": {
        "method": "ties",
        "parameters": {"weight": [1.0, 0.6, 0.8], "density": 0.4, "lambda": 1.2},
        "models": 3,
        "base": True,
    },
}


def made(number: int) -> torch.Tensor:
    """The tensor of model ``number``; 0 is the base. No two entries are equal in size."""
    return torch.sin(torch.arange(1, 13, dtype=torch.float32) * (1.7 + number)).reshape(3, 4)


def main() -> None:
    from mergekit.merge_methods import merge_tensors

    found = {}
    for name, case in CASES.items():
        tensors = [made(number) for number in range(1, case["models"] + 1)]
        parameters = dict(case["parameters"])
        base_index = None
        if case["base"]:
            tensors, base_index = [made(0), *tensors], 0
            parameters["weight"] = {i + 1: weight for i, weight in enumerate(parameters["weight"])}
            if "density" in parameters:
                parameters["density"] = {i + 1: parameters["density"] for i in range(case["models"])}
        elif case["method"] == "slerp":
            base_index = 0
        result = merge_tensors(tensors, case["method"], parameters=parameters, base_index=base_index)
        found[name] = result.flatten().tolist()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
