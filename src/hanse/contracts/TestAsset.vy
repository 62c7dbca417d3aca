# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
"""
@title Hanse Test Asset
@license Apache-2.0
@author The Hanse maintainers
@notice An ERC-20 of 6 decimals with EIP-2612 and EIP-3009, for local networks and tests.
        ANYONE CAN MINT ANY AMOUNT: it is worth nothing, and says so in its name.
@dev Amounts are base units (10**-6). How to stop it: nobody can, and nobody needs to.
     Sources: EIP-20, EIP-712, EIP-2612, EIP-3009.
"""

from interfaces import IAsset

implements: IAsset


event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    amount: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    amount: uint256


event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


name: public(constant(String[24])) = "Hanse Test Dollar"
symbol: public(constant(String[8])) = "tHSD"
decimals: public(constant(uint8)) = 6
version: public(constant(String[1])) = "1"

S_MAX: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
DOMAIN_TYPEHASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PERMIT_TYPEHASH: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
TRANSFER_TYPEHASH: constant(bytes32) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_TYPEHASH: constant(bytes32) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
CANCEL_TYPEHASH: constant(bytes32) = keccak256(
    "CancelAuthorization(address authorizer,bytes32 nonce)"
)

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
# EIP-2612: the nonce of an owner's next permit.
nonces: public(HashMap[address, uint256])
# EIP-3009: whether an authorisation's nonce is used or cancelled.
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])


@deploy
def __init__():
    """
    @notice Begin with no supply.
    """
    pass


@external
def mint(receiver: address, amount: uint256):
    """
    @notice Create `amount` base units for `receiver`. Open to anyone: this is a test asset.
    """
    self.totalSupply += amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=empty(address), receiver=receiver, amount=amount)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    """
    @notice Move `amount` base units from the caller.
    """
    self._transfer(msg.sender, receiver, amount)
    return True


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    """
    @notice Move `amount` base units that `sender` allowed the caller; the highest allowance is never used up.
    """
    allowed: uint256 = self.allowance[sender][msg.sender]
    if allowed != max_value(uint256):
        assert allowed >= amount, "allowance"
        self.allowance[sender][msg.sender] = allowed - amount
    self._transfer(sender, receiver, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Let `spender` move up to `amount` base units of the caller.
    """
    self._approve(msg.sender, spender, amount)
    return True


@external
def permit(
    owner: address,
    spender: address,
    amount: uint256,
    deadline: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice `approve` by the owner's EIP-712 signature (EIP-2612).
    """
    assert block.timestamp <= deadline, "deadline"
    nonce: uint256 = self.nonces[owner]
    self._check_signature(
        owner, keccak256(abi_encode(PERMIT_TYPEHASH, owner, spender, amount, nonce, deadline)), v, r, s
    )
    self.nonces[owner] = nonce + 1
    self._approve(owner, spender, amount)


@external
def transferWithAuthorization(
    sender: address,
    receiver: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice Move `amount` base units by the sender's signature; anyone may submit it (EIP-3009).
    """
    self._use_authorization(
        TRANSFER_TYPEHASH, sender, receiver, amount, valid_after, valid_before, nonce, v, r, s
    )


@external
def receiveWithAuthorization(
    sender: address,
    receiver: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice Move `amount` base units by the sender's signature; only the receiver may submit it (EIP-3009).
    """
    assert receiver == msg.sender, "caller"
    self._use_authorization(
        RECEIVE_TYPEHASH, sender, receiver, amount, valid_after, valid_before, nonce, v, r, s
    )


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Make an authorisation unusable by its author's signature (EIP-3009).
    """
    assert not self.authorizationState[authorizer][nonce], "used"
    self._check_signature(
        authorizer, keccak256(abi_encode(CANCEL_TYPEHASH, authorizer, nonce)), v, r, s
    )
    self.authorizationState[authorizer][nonce] = True
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice EIP-712 domain separator of permits and authorisations.
    """
    return self._domain()


@internal
def _transfer(sender: address, receiver: address, amount: uint256):
    assert receiver != empty(address), "receiver"
    balance: uint256 = self.balanceOf[sender]
    assert balance >= amount, "funds"
    self.balanceOf[sender] = balance - amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=sender, receiver=receiver, amount=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, amount=amount)


@internal
def _use_authorization(
    typehash: bytes32,
    sender: address,
    receiver: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    assert block.timestamp > valid_after and block.timestamp < valid_before, "deadline"
    assert not self.authorizationState[sender][nonce], "used"
    struct_hash: bytes32 = keccak256(
        abi_encode(typehash, sender, receiver, amount, valid_after, valid_before, nonce)
    )
    self._check_signature(sender, struct_hash, v, r, s)
    self.authorizationState[sender][nonce] = True
    log AuthorizationUsed(authorizer=sender, nonce=nonce)
    self._transfer(sender, receiver, amount)


@internal
@view
def _check_signature(signer: address, struct_hash: bytes32, v: uint8, r: bytes32, s: bytes32):
    assert signer != empty(address), "signature"
    assert convert(s, uint256) <= S_MAX, "signature"
    digest: bytes32 = keccak256(concat(0x1901, self._domain(), struct_hash))
    assert ecrecover(digest, v, r, s) == signer, "signature"


@internal
@view
def _domain() -> bytes32:
    return keccak256(
        abi_encode(DOMAIN_TYPEHASH, keccak256(name), keccak256(version), chain.id, self)
    )
