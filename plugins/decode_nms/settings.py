"""With what numbers an export with ``--decode nms`` calls DecodeNMS; parity needs them to judge a list that NMS has made."""

from __future__ import annotations

from apex_plugins.decode_nms.reference import MAX_PRE_NMS

# Of each level as many as the op can take (1000 rows in all): an object has several one-to-many candidates, so that with hundreds
# of objects in an image even this costs recall, and a smaller number would cost more.
PRE_NMS = MAX_PRE_NMS

# The runtime's own default for --min-score: what the host would drop anyway need not be compared with anything.
MIN_SCORE = 0.001

# Between the two common choices: 0.5 removes true neighbours that touch (nuclei, parked cars), 0.7 leaves doubles.
IOU = 0.6
