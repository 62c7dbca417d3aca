"""Commands of the zk tier, and the Solidity compiler that they need for the contract."""
