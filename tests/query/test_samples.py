from tests.small_project import small_project


def test_a_table_of_samples_is_the_list_made_as_it_is_used(tmp_path) -> None:
    store = small_project(tmp_path / "p").store
    table, listed = store.sample_table("split = 'train'"), store.samples("train")
    assert len(table) == len(listed) == 2
    assert list(table) == list(table) == listed
    assert [table[i] for i in range(2)] == listed
    assert list(table[1:]) == listed[1:]
    assert listed[0] in table
    assert store.samples() == list(store.sample_table())
