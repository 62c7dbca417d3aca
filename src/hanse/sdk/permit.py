"""A signed allowance (EIP-2612), so that a deposit is one transaction instead of two.

    permit = await find_permit(asset, wallet, escrow, amount, head, chain_id)   # None: use approve

The wallet signs under the asset's domain, which the asset itself states. We compute that domain
from name, version, chain and address and sign only if the asset's own word is the same: an asset
that states another contract's domain would else have us sign an allowance over that one.

Source: EIP-2612, EIP-712.
"""

from hanse.chain import Asset, ChainError, Header, Key, PermitSignature
from hanse.protocol.eip712 import DOMAIN_TYPE, address_word, string_word, uint_word
from hanse.protocol.intents import Permit
from hanse.protocol.signatures import Address, keccak

PERMIT_VALID_S = 3_600
"""A transaction that is not mined within an hour is looked at by a person anyway."""


async def find_permit(
    asset: Asset, wallet: Key, spender: Address, amount: int, head: Header, chain_id: int
) -> PermitSignature | None:
    """Sign that `spender` may take `amount` base units; None if the asset knows no permits.

    The deadline counts by the chain's clock.
    """
    contract, block = asset.contract, head.number
    try:
        (stated,) = await contract.read("DOMAIN_SEPARATOR", block=block)
        (name,) = await contract.read("name", block=block)
        (version,) = await contract.read("version", block=block)
        nonce = await asset.read_nonce(wallet.address, block=block)
    except ChainError:
        return None
    separator = keccak(
        string_word(DOMAIN_TYPE)
        + string_word(name)
        + string_word(version)
        + uint_word(chain_id)
        + address_word(asset.address)
    )
    if bytes(stated) != separator:
        return None
    deadline_s = head.timestamp_s + PERMIT_VALID_S
    permit = Permit(wallet.address, spender, amount, nonce, deadline_s)
    digest = keccak(b"\x19\x01" + separator + permit.struct_hash())
    return PermitSignature(deadline_s, wallet.sign_digest(digest))
