"""Masks files in the formats of other tools: one module a format, each with one function.

    def write_NAME(conversion: Conversion, *, OPTION, ...) -> Written

The command's table of formats (cli/masks/convert.py) names module, function and options of each.
"""
