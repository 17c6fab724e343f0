"""The contract of the command line as a table: what README.md promises, row by row."""

from tests.contract import addresses, chat, edits, errors, exports, folders, lists, options, pictures, streams, words

ROWS = (
    *streams.ROWS,
    *words.ROWS,
    *pictures.ROWS,
    *edits.ROWS,
    *folders.ROWS,
    *lists.ROWS,
    *exports.ROWS,
    *chat.ROWS,
    *options.ROWS,
    *errors.ROWS,
    *addresses.ROWS,
)
