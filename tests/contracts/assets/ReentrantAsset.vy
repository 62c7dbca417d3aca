# pragma version 0.4.3
"""
@notice Attack asset: calls `target` with `payload` in the middle of every transfer once armed.
"""

balanceOf: public(HashMap[address, uint256])
target: public(address)
payload: public(Bytes[1024])
tried: public(uint256)
succeeded: public(uint256)


@external
def arm(target: address, payload: Bytes[1024]):
    self.target = target
    self.payload = payload


@external
def strike() -> bool:
    """
    @notice The same call from outside a transfer.
    """
    return raw_call(self.target, self.payload, revert_on_failure=False)


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def transfer(receiver: address, amount: uint256) -> bool:
    self._move(msg.sender, receiver, amount)
    return True


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    self._move(sender, receiver, amount)
    return True


@internal
def _move(sender: address, receiver: address, amount: uint256):
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    if self.target != empty(address):
        self.tried += 1
        if raw_call(self.target, self.payload, revert_on_failure=False):
            self.succeeded += 1
