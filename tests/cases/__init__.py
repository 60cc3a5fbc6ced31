"""The cases of test_contract.py, one file per family of operators."""
