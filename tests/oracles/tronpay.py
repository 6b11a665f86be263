# Pays as a wallet on tronpy does: { node, secret, to, amount, now_ms, token? } -> { txid, from }, JSON in and out.
# `amount` is in base units, as a decimal string; `token` is the contract of a TRC20, absent for TRX; `secret` is the payer's
# private key in hex; `now_ms` is what the wallet's clock says, because a test's chain lives at another time.
import json
import sys
import time

wish = json.load(sys.stdin)
began = time.monotonic()
time.time = lambda: wish["now_ms"] / 1000 + time.monotonic() - began

from tronpy import Tron  # noqa: E402
from tronpy.keys import PrivateKey  # noqa: E402
from tronpy.providers import HTTPProvider  # noqa: E402

key = PrivateKey(bytes.fromhex(wish["secret"]))
payer = key.public_key.to_base58check_address()
client = Tron(HTTPProvider(wish["node"]))
amount = int(wish["amount"])

if "token" in wish:
    token = client.get_contract(wish["token"])
    draft = token.functions.transfer(wish["to"], amount).with_owner(payer).fee_limit(100_000_000)
else:
    draft = client.trx.transfer(payer, wish["to"], amount)
sent = draft.build().sign(key).broadcast()
json.dump({"txid": sent.txid, "from": payer}, sys.stdout)
