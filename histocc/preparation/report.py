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
        Rows without a first code: it was written as `?`, or they were left out.
    rows_short
        Rows with an accepted code shorter than the block.
    float_cells
        Cells of code columns that held whole floats, such as `61110.0`.
    stripped_cells
        Cells of code columns that lost the blanks around their code.
    unmarked_cells
        Cells whose code stood in the form `="06510"`, which spreadsheets leave alone.
    padded_cells
        Cells whose code got leading zeros.
    rows_first_gap
        Rows without a first code that have a later one.
    rows_without_language
        Rows that got the language `unk`.
    languages_read
        The code that each spelling of a language was read as, where it is another.
    rows_val_seen
        Rows of the validation file whose text stands in the training file too.
    codes_only_in_val
        Codes of the validation file that the training file lacks.
    rows_duplicate
        Rows that repeat another one, with codes and language.
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
    stripped_cells: int = 0
    unmarked_cells: int = 0
    padded_cells: int = 0
    rows_first_gap: int = 0
    rows_without_language: int = 0
    rows_val_seen: int = 0
    codes_only_in_val: list[str] = field(default_factory=list)
    rows_duplicate: int = 0
    languages_read: dict[str, str] = field(default_factory=dict)
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
