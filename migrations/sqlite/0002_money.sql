-- What moved an account since a seal is found without what moved it before: folding costs what is new.
drop index postings_of_debit;
drop index postings_of_credit;
create index postings_of_debit on postings (debit_id, seal_no);
create index postings_of_credit on postings (credit_id, seal_no);
create index accounts_folded on accounts (id) where floored = 0;

-- From key to key of the envelope, which a start tries all.
create index stock_items_by_key on stock_items (substr(sealed, 1, 5));
