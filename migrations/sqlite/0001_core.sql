-- Columns are BIGINT (instants in epoch milliseconds, 0/1 flags, fiat in minor units), TEXT and BLOB.
-- Amounts of assets are 32 bytes big-endian, so that byte order is numeric order.

-- Who does the work that only one instance may do. The epoch is a fencing token.
create table leases (
    name text primary key,
    owner text not null,
    epoch bigint not null,
    until_at bigint not null
);

-- What must be the same at every start: chain ids, genesis hashes, token decimals, the account keys of the configuration.
create table pinned_facts (
    name text primary key,
    fact text not null,
    pinned_at bigint not null
);

------------------------------------------------------------------------------------------------------------------ events

create table events (
    seq integer primary key autoincrement,
    merchant_id bigint not null,
    mode text not null check (mode in ('live', 'test')),
    kind text not null,
    subject text not null,
    body text not null,
    at bigint not null
);
create index events_of_merchant on events (merchant_id, mode, seq);

-- The operator's inbox: money or facts that no rule decides.
create table reviews (
    id integer primary key autoincrement,
    kind text not null,
    subject text not null,
    detail text not null,
    opened_at bigint not null,
    closed_at bigint,
    closing_note text,
    unique (kind, subject)
);
create index reviews_open on reviews (opened_at) where closed_at is null;

-- What administrators did.
create table audit_log (
    seq integer primary key autoincrement,
    actor text not null,
    action text not null,
    subject text not null,
    detail text not null,
    recorded_at bigint not null
);

------------------------------------------------------------------------------------------------------------------ ledger

create table accounts (
    id integer primary key autoincrement,
    mode text not null check (mode in ('live', 'test')),
    code text not null,
    asset text not null,
    -- 1: what is credited minus what is debited or held may not go below zero, and the balance row is always current.
    floored bigint not null check (floored in (0, 1)),
    unique (code, asset, mode)
);

-- Of floored accounts, current in every transaction; of all others, folded up to `through_seq` by a worker.
create table balances (
    account_id integer primary key references accounts (id),
    debits_pending blob not null check (length(debits_pending) = 32),
    debits_posted blob not null check (length(debits_posted) = 32),
    credits_pending blob not null check (length(credits_pending) = 32),
    credits_posted blob not null check (length(credits_posted) = 32),
    through_seq bigint not null
);

-- Immutable. One debit, one credit, one asset. `pending` is a hold; exactly one `post` or `void` resolves it.
create table postings (
    seq integer primary key autoincrement,
    entry text not null,
    leg bigint not null,
    kind text not null check (kind in ('posted', 'pending', 'post', 'void')),
    pending_seq bigint references postings (seq),
    debit_id bigint not null references accounts (id),
    credit_id bigint not null references accounts (id),
    amount blob not null check (length(amount) = 32),
    reason text not null,
    at bigint not null,
    -- The hash chain: set once, in the same transaction or soon after by the sealing worker.
    seal_no bigint unique,
    hash blob check (length(hash) = 32),
    check ((kind in ('post', 'void')) = (pending_seq is not null)),
    check (debit_id <> credit_id),
    unique (entry, leg)
);
create unique index postings_resolve_once on postings (pending_seq) where pending_seq is not null;
create index postings_of_debit on postings (debit_id, seq);
create index postings_of_credit on postings (credit_id, seq);
create index postings_unsealed on postings (seq) where seal_no is null;

------------------------------------------------------------------------------------------------------------- merchants

create table merchants (
    id integer primary key autoincrement,
    public_id text not null unique,
    slug text not null unique,
    name text not null,
    created_at bigint not null
);

create table users (
    id integer primary key autoincrement,
    public_id text not null unique,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    name text not null,
    state text not null check (state in ('active', 'disabled')),
    created_at bigint not null,
    unique (merchant_id, mode, name)
);

-- Personal data stands apart and can be erased.
create table user_contacts (
    user_id integer primary key references users (id),
    email text not null
);

create table user_tokens (
    id integer primary key autoincrement,
    user_id bigint not null references users (id),
    hash blob not null unique check (length(hash) = 32),
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint
);

create table idempotency_keys (
    scope text not null,
    key text not null,
    fingerprint blob not null check (length(fingerprint) = 32),
    status bigint not null,
    body text not null,
    created_at bigint not null,
    -- Null: kept for ever, because the call moved money.
    expires_at bigint,
    primary key (scope, key)
);
create index idempotency_keys_expire on idempotency_keys (expires_at) where expires_at is not null;

--------------------------------------------------------------------------------------------------------------- catalog

create table categories (
    id integer primary key autoincrement,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    slug text not null,
    parent_id bigint references categories (id),
    position bigint not null,
    unique (merchant_id, mode, slug)
);

create table products (
    id integer primary key autoincrement,
    public_id text not null unique,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    slug text not null,
    category_id bigint references categories (id),
    state text not null check (state in ('active', 'inactive')),
    min_quantity bigint not null check (min_quantity >= 1),
    max_quantity bigint not null check (max_quantity >= min_quantity),
    position bigint not null,
    created_at bigint not null,
    unique (merchant_id, mode, slug)
);

-- Names and descriptions by language tag; `subject` is product:ID, sku:ID or category:ID.
create table texts (
    subject text not null,
    language text not null,
    field text not null,
    body text not null,
    primary key (subject, field, language)
);

create table skus (
    id integer primary key autoincrement,
    product_id bigint not null references products (id),
    code text not null,
    state text not null check (state in ('active', 'inactive')),
    -- Stock items in stock, kept beside them so that a reservation is one guarded update.
    available bigint not null check (available >= 0),
    unique (product_id, code)
);

-- The unit price from a quantity on; every SKU has one from 1 on.
create table sku_prices (
    sku_id bigint not null references skus (id),
    from_quantity bigint not null check (from_quantity >= 1),
    currency text not null,
    unit_price bigint not null check (unit_price >= 0),
    primary key (sku_id, currency, from_quantity)
);

create table stock_items (
    id integer primary key autoincrement,
    sku_id bigint not null references skus (id),
    state text not null check (state in ('in_stock', 'reserved', 'delivered', 'withdrawn')),
    line_id bigint,
    -- The secret line, encrypted; the first bytes name the key.
    sealed blob not null,
    -- Keyed digest of the line: the same line is not imported twice.
    digest blob not null check (length(digest) = 32),
    imported_at bigint not null,
    check ((state in ('reserved', 'delivered')) = (line_id is not null)),
    unique (sku_id, digest)
);
create index stock_items_free on stock_items (sku_id, id) where state = 'in_stock';
create index stock_items_of_line on stock_items (line_id) where line_id is not null;

create table coupons (
    id integer primary key autoincrement,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    code text not null,
    -- percent: `value` in basis points; fixed: `value` in minor units of `currency`.
    kind text not null check (kind in ('percent', 'fixed')),
    value bigint not null check (value > 0),
    currency text not null,
    min_amount bigint not null check (min_amount >= 0),
    product_id bigint references products (id),
    max_uses bigint,
    uses bigint not null check (uses >= 0),
    starts_at bigint,
    ends_at bigint,
    state text not null check (state in ('active', 'inactive')),
    created_at bigint not null,
    check (max_uses is null or uses <= max_uses),
    unique (merchant_id, mode, code)
);

---------------------------------------------------------------------------------------------------------------- orders

create table orders (
    id integer primary key autoincrement,
    public_id text not null unique,
    order_no text not null unique,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    surface text not null,
    state text not null check (state in ('created', 'awaiting_payment', 'paid', 'processing', 'partially_delivered',
        'delivered', 'completed', 'expired', 'cancelled', 'failed', 'refunded')),
    currency text not null,
    original_amount bigint not null check (original_amount >= 0),
    discount_amount bigint not null check (discount_amount >= 0),
    amount bigint not null check (amount >= 0),
    user_id bigint references users (id),
    coupon_id bigint references coupons (id),
    created_at bigint not null,
    expires_at bigint,
    paid_at bigint,
    closed_at bigint,
    check (original_amount = amount + discount_amount)
);
create index orders_of_merchant on orders (merchant_id, mode, id);

create table order_contacts (
    order_id integer primary key references orders (id),
    email text not null,
    -- Trimmed and lower-cased, for comparison.
    email_key text not null
);

create table order_lines (
    id integer primary key autoincrement,
    order_id bigint not null references orders (id),
    line_no bigint not null,
    sku_id bigint not null references skus (id),
    quantity bigint not null check (quantity >= 1),
    unit_price bigint not null check (unit_price >= 0),
    state text not null check (state in ('pending', 'delivered', 'failed')),
    delivered_at bigint,
    unique (order_id, line_no)
);

-- Work that the payment of an order started: goods to hand out. A row leaves when it is done.
create table fulfilments (
    order_id integer primary key references orders (id),
    attempts bigint not null,
    next_at bigint not null
);
create index fulfilments_due on fulfilments (next_at);

-------------------------------------------------------------------------------------------------------------- payments

-- One attempt to pay an order.
create table payments (
    id integer primary key autoincrement,
    public_id text not null unique,
    order_id bigint not null references orders (id),
    method text not null check (method in ('crypto', 'balance_cny', 'balance_crypto', 'alipay', 'wechat')),
    state text not null check (state in ('pending', 'confirming', 'success', 'failed', 'expired')),
    -- What was taken from a balance, in base units of `asset`; null for the other methods.
    asset text,
    amount blob check (amount is null or length(amount) = 32),
    -- The external checkout's page and its own id.
    pay_url text,
    provider_ref text,
    rate text,
    rate_source text,
    rated_at bigint,
    created_at bigint not null,
    closed_at bigint
);
create index payments_of_order on payments (order_id);
create index payments_external on payments (order_id) where state = 'pending' and method in ('alipay', 'wechat');

-- A watch-only account key; indices are handed out in order and never twice.
create table address_accounts (
    id integer primary key autoincrement,
    family text not null check (family in ('bitcoin', 'evm', 'tron')),
    xpub text not null unique,
    next_index bigint not null
);

create table addresses (
    id integer primary key autoincrement,
    chain text not null,
    key blob not null check (length(key) = 20),
    text text not null,
    account_id bigint not null references address_accounts (id),
    idx bigint not null,
    issued_at bigint not null,
    unique (account_id, idx),
    unique (chain, key)
);

-- What an on-chain payment asks: so much of this asset, to this address, until then.
create table invoices (
    id integer primary key autoincrement,
    public_id text not null unique,
    payment_id bigint not null unique references payments (id),
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    chain text not null,
    asset text not null,
    address_id bigint not null unique references addresses (id),
    state text not null check (state in ('open', 'paid', 'reversed', 'expired', 'cancelled')),
    due blob not null check (length(due) = 32),
    -- How far below `due` still counts as paid.
    tolerance blob not null check (length(tolerance) = 32),
    currency text not null,
    price bigint not null,
    rate text not null,
    rate_source text not null,
    rated_at bigint not null,
    -- Depth at which a deposit to it counts as confirmed, fixed by chain and value when it was made.
    confirmations bigint not null check (confirmations >= 1),
    created_at bigint not null,
    expires_at bigint not null,
    closed_at bigint,
    -- How often it was settled (again after a reversal), what the merchant was credited last, and when that became final.
    settlements bigint not null,
    settled blob check (settled is null or length(settled) = 32),
    released_at bigint,
    -- Until when a reversed one waits for its money to come again.
    reversed_until bigint
);
create index invoices_reversed on invoices (chain, reversed_until) where state = 'reversed';
create index invoices_open on invoices (chain, expires_at) where state = 'open';
create index invoices_open_of_chain on invoices (chain, asset, expires_at) where state = 'open';

---------------------------------------------------------------------------------------------------------------- chains

create table cursors (
    chain text primary key,
    height bigint not null,
    hash blob not null check (length(hash) = 32),
    time bigint not null,
    final_height bigint not null,
    -- The first block ever read: everything from here on was seen.
    since_height bigint not null,
    -- Why the chain stands still until a person looks; null while it moves.
    halted text
);

-- Our recent branch, as deep as a reorganisation can be followed.
create table blocks (
    chain text not null,
    height bigint not null,
    hash blob not null check (length(hash) = 32),
    time bigint not null,
    primary key (chain, height)
);

create table deposits (
    id integer primary key autoincrement,
    chain text not null,
    height bigint not null,
    tx_index bigint not null,
    part bigint not null,
    block_hash blob not null check (length(block_hash) = 32),
    block_time bigint not null,
    txid blob not null check (length(txid) = 32),
    asset text not null,
    address_id bigint not null references addresses (id),
    invoice_id bigint not null references invoices (id),
    amount blob not null check (length(amount) = 32),
    sender text,
    state text not null check (state in ('seen', 'confirmed', 'final', 'orphaned')),
    -- counted towards its invoice; or recorded apart: short (the invoice expired unpaid), surplus (it was paid already),
    -- late (it came after the window), foreign (another asset).
    use text not null check (use in ('counted', 'short', 'surplus', 'late', 'foreign')),
    -- The cursor height from which on it is confirmed by depth.
    confirm_height bigint not null,
    seen_at bigint not null,
    confirmed_at bigint,
    final_at bigint,
    orphaned_at bigint,
    -- The transaction that spends it and its block, where it is an output; whoever signed it.
    spent_by blob check (spent_by is null or length(spent_by) = 32),
    spent_height bigint
);
-- The same movement is booked once; a growing key keeps the index cheap.
create unique index deposits_once on deposits (chain, height, tx_index, part) where state <> 'orphaned';
create index deposits_of_invoice on deposits (invoice_id);
create index deposits_seen on deposits (chain, confirm_height) where state = 'seen';
create index deposits_confirmed on deposits (chain, height) where state = 'confirmed';

-- Outputs (`Part::OUTPUTS`): by their name, those that can be spent, and what a reorganisation takes back.
create index deposits_by_output on deposits (chain, txid, part)
    where part >= 12884901888 and part < 17179869184 and state <> 'orphaned';
create index deposits_unspent on deposits (chain, id)
    where part >= 12884901888 and part < 17179869184 and state <> 'orphaned' and spent_by is null;
create index deposits_spent on deposits (chain, spent_height) where spent_height is not null;

-- Transfers on their way: in a mempool, or in a block that can still vanish. No money; what was first seen inside the
-- window is in time.
create table unconfirmed (
    id integer primary key autoincrement,
    chain text not null,
    txid blob not null check (length(txid) = 32),
    part bigint not null,
    asset text not null,
    invoice_id bigint not null references invoices (id),
    amount blob not null check (length(amount) = 32),
    replaceable bigint not null check (replaceable in (0, 1)),
    state text not null check (state in ('seen', 'mined', 'orphaned')),
    first_seen_at bigint not null,
    ended_at bigint,
    unique (chain, txid, part)
);
create index unconfirmed_seen on unconfirmed (chain, id) where state = 'seen';
create index unconfirmed_of_invoice on unconfirmed (invoice_id);

----------------------------------------------------------------------------------------------------------------- mail

create table mails (
    id integer primary key autoincrement,
    recipient text not null,
    subject text not null,
    body text not null,
    state text not null check (state in ('queued', 'sent', 'failed')),
    attempts bigint not null,
    next_at bigint not null,
    last_error text,
    created_at bigint not null
);
create index mails_due on mails (next_at) where state = 'queued';

---------------------------------------------------------------------------------------------------------------- rates

-- Every rate that was accepted: `rate` units of `quote` for one `base`.
create table rates (
    id integer primary key autoincrement,
    base text not null,
    quote text not null,
    rate text not null,
    source text not null,
    at bigint not null
);
create index rates_latest on rates (base, quote, id);
