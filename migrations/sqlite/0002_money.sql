-- What moved an account since a seal is found without what moved it before: folding costs what is new.
drop index postings_of_debit;
drop index postings_of_credit;
create index postings_of_debit on postings (debit_id, seal_no);
create index postings_of_credit on postings (credit_id, seal_no);
create index accounts_folded on accounts (id) where floored = 0;

-- From key to key of the envelope, which a start tries all, and of each to the newest item in a state.
create index stock_items_by_key on stock_items (substr(sealed, 1, 5), state, id);

-- Too little to be anybody's payment is `dust`. A check cannot be changed on both databases, so the column is another one; its
-- default is for the rows that are there.
alter table deposits add column use_of text not null default 'counted'
    check (use_of in ('counted', 'short', 'surplus', 'late', 'foreign', 'dust'));
update deposits set use_of = use;
alter table deposits drop column use;
alter table deposits rename column use_of to use;
