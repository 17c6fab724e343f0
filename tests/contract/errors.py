from tests.contract.row import Row

ROWS: tuple[Row, ...] = ()
