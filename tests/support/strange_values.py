"""Values that a damaged network file may have where a number or a word is expected."""

STRANGE_VALUES = (
    *("0", "-1", "-7", "1", "3", "1.5", "1e15", "99999999999999999", "1e-300", "nan", "inf"),
    *("1,2", "1,,2", ",", "#", "0,0,0", "x", "0x10", "\u0661", "1=2", "leaky", "-1,-900"),
)
