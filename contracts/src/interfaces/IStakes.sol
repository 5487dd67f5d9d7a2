// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Stakes of providers, tickets of auditors, and what the contract owes.
/// @dev A provider's and an auditor's stake are apart, also when one address is both.
interface IStakes {
    event StakeAdded(address indexed provider, uint256 amount);
    event StakeRemoved(address indexed provider, uint256 amount);
    event TicketsBought(address indexed auditor, uint256 firstTicketId, uint256 count);
    event TicketRetired(uint256 indexed ticketId, address indexed auditor);
    event CreditWithdrawn(address indexed account, uint256 amount);

    error StakesWrongPayment(uint256 paid, uint256 required);
    error StakesNotTicketOwner(uint256 ticketId, address owner, address caller);
    error StakesTicketLeaving(uint256 ticketId);
    error StakesNoCredit(address account);
    error StakesPaymentFailed(address account, uint256 amount);

    /// @notice Add what is sent to the caller's stake as a provider.
    function stake() external payable;

    /// @notice Move `amount` of the caller's free stake as a provider to its credit.
    function unstake(uint256 amount) external;

    /// @notice List `count` tickets of the caller, each for `Config.ticketStake` of the payment.
    function buyTickets(uint256 count) external payable;

    /// @notice Mark the caller's ticket as leaving, which no draw picks, and move its stake to the caller's credit.
    /// @dev Refused while the auditor's free stake does not cover it. The ticket keeps its place in the list.
    function retireTicket(uint256 ticketId) external;

    /// @notice Send the caller its credit.
    function withdraw() external;

    /// @return Wei that `account` can withdraw.
    function creditOf(address account) external view returns (uint256);

    /// @return staked Wei, of which `locked` answers for open leases.
    function providerStake(address provider) external view returns (uint256 staked, uint256 locked);

    /// @return staked Wei, of which `locked` answers for open leases.
    function auditorStake(address auditor) external view returns (uint256 staked, uint256 locked);

    /// @return How many tickets were ever listed.
    function ticketCount() external view returns (uint256);

    /// @return owner The auditor whose ticket it is.
    /// @return leaving Whether it was retired.
    function getTicket(uint256 ticketId) external view returns (address owner, bool leaving);
}
