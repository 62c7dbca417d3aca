# pragma version 0.4.3
"""
@notice Attack asset: honest until `set_mode`. 1: reverts, 2: returns False without moving anything,
        3: returns False after moving, 4: says that it moved and has not.
"""

balanceOf: public(HashMap[address, uint256])
mode: public(uint256)


@external
def set_mode(mode: uint256):
    self.mode = mode


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def transfer(receiver: address, amount: uint256) -> bool:
    return self._move(msg.sender, receiver, amount)


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    return self._move(sender, receiver, amount)


@internal
def _move(sender: address, receiver: address, amount: uint256) -> bool:
    assert self.mode != 1, "paused"
    if self.mode != 2 and self.mode != 4:
        self.balanceOf[sender] -= amount
        self.balanceOf[receiver] += amount
    return self.mode == 0 or self.mode == 4
