"""Worn holdout groups leave for train once as many fresh ones are there.

A group that has decided several promotions proves less each time. Who labels every week gets fresh holdout groups every
week; the worn ones serve better as material that the reviser is shown. Groups that differ in spelling only leave
together, so that train never tells what the holdout asks. Nothing ever enters holdout or test this way.
"""

import json
from collections import Counter

import polars as pl

from piar.evolve.ledger import fingerprints
from piar.evolve.promotion import PromotionSettings
from store.db import Store
from store.splits import with_forms


def retire(store: Store, settings: PromotionSettings) -> int:
    """Move groups that have decided `warn_uses` promotions from holdout to train.

    Nothing moves while there are fewer labelled holdout groups that have decided less.

    Returns:
        how many groups moved.
    """
    uses = _uses(store)
    if not uses:
        return 0
    groups = with_forms(
        store.frame(
            """select group_key as "group", count(truth.grade) > 0 as labelled from samples
               left join truth using (sample_id) where split = 'holdout' group by 1 order by 1"""
        )
    )
    worn = [uses[fingerprints([group])[0]] >= settings.warn_uses for group in groups["group"].to_list()]
    groups = groups.with_columns(worn=pl.Series(worn, dtype=pl.Boolean))
    groups = groups.with_columns(leaves=pl.col("worn").any().over("form"))
    leaving, fresh = groups.filter("leaves")["group"].to_list(), groups.filter(~pl.col("leaves") & pl.col("labelled"))
    if not leaving or len(fresh) < len(leaving):
        return 0
    with store.write() as con:
        con.execute(
            "update samples set split = 'train' where split = 'holdout' and group_key in (select unnest(?::varchar[]))",
            [leaving],
        )
    return len(leaving)


def _uses(store: Store) -> Counter[str]:
    """Fingerprint of a group -> promotions that it has decided."""
    details = store.frame("select detail from decisions where kind = 'promotion'")["detail"].to_list()
    return Counter(name for detail in details for name in json.loads(detail).get("holdout_groups", ()))
