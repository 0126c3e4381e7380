"""What preparation did, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PreparationReport:
    """What became of a table.

    Attributes
    ----------
    save_path
        The folder with the prepared files.
    reused
        The files were there already and nothing else was done.
    rows_read
        Rows of the table, without the empty ones.
    rows_train, rows_val
        Rows of the two files.
    rows_dropped
        Rows that were left out.
    rows_empty
        Rows without any value, which count in none of the others.
    dropped
        Rows left out, by reason; a row may have several.
    classes
        Codes in the key.
    codes_added
        How many of them came from the file of all codes.
    missing_spellings
        How often each spelling of "no code" stands in the code columns.
    rows_without_first_code
        Rows whose first code was written as `?`.
    rows_short
        Rows with an accepted code shorter than the block.
    float_cells
        Cells of code columns that held whole floats, such as `61110.0`.
    notes
        Everything worth telling, a line each.
    """

    save_path: str
    reused: bool = False
    rows_read: int = 0
    rows_train: int = 0
    rows_val: int = 0
    rows_dropped: int = 0
    rows_empty: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    codes_added: int = 0
    missing_spellings: dict[str, int] = field(default_factory=dict)
    rows_without_first_code: int = 0
    rows_short: int = 0
    float_cells: int = 0
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The report for people, several lines."""
        if self.reused:
            title = f"Data: {self.save_path}, prepared before; {self.classes:,} codes"
        else:
            title = (
                f"Data: {self.rows_read:,} rows read; {self.rows_train:,} for training, {self.rows_val:,} for "
                f"validation, {self.rows_dropped:,} left out; {self.classes:,} codes; saved in {self.save_path}"
            )
        return "\n".join([title, *(f"  - {note}" for note in self.notes)])
