// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Account, Role} from "../libraries/Accounts.sol";

/// @notice Who provides and audits: operators, their keys, their stakes and tickets.
/// @dev The owner (a cold key) moves money; a worker (a hot key) acts on leases and can move none. A provider's
/// and an auditor's stake are apart, also when one operator is both.
interface IOperators {
    event OperatorRegistered(uint256 indexed operator, address indexed owner, address payout);
    event OwnerChanged(uint256 indexed operator, address indexed owner);
    event OwnerProposed(uint256 indexed operator, address indexed owner);
    event PayoutChanged(uint256 indexed operator, address indexed payout);
    event WorkerChanged(uint256 indexed operator, address indexed worker, bool authorized);
    event StakeAdded(uint256 indexed operator, Role role, uint256 asset, uint256 amount);
    event StakeThawing(uint256 indexed operator, Role role, uint256 asset, uint256 amount, uint256 until);
    event StakeWithdrawn(uint256 indexed operator, Role role, uint256 asset, uint256 amount);
    event EarningsPaid(uint256 indexed operator, Role role, uint256 asset, uint256 amount, address payout);
    event TicketsBought(uint256 indexed operator, uint256 asset, uint256 firstTicketId, uint256 count);
    event TicketRetired(uint256 indexed operator, uint256 asset, uint256 ticketId);

    error OperatorUnknown(uint256 operator);
    error OperatorNotOwner(uint256 operator, address owner, address caller);
    error OperatorNotWorker(uint256 operator, address caller);
    error OperatorNeedsPayout();
    error OperatorZeroAmount();
    error OperatorStakeThawing(uint256 operator, uint256 until, uint256 time);
    error OperatorNothingThawing(uint256 operator);
    error OperatorNothingEarned(uint256 operator);
    error TicketNotOwned(uint256 ticketId, uint256 owner, uint256 operator);
    error TicketLeaving(uint256 ticketId);

    /// @notice Become an operator: the caller is its owner and a worker; pay goes to `payout`.
    function register(address payout) external returns (uint256 operator);

    /// @notice Let `worker` act for the operator, or no longer, at once.
    function setWorker(uint256 operator, address worker, bool authorized) external;

    function setPayout(uint256 operator, address payout) external;

    /// @notice Offer the operator to another owner, which `acceptOwner` completes.
    function proposeOwner(uint256 operator, address owner) external;

    function acceptOwner(uint256 operator) external;

    /// @notice Add to an operator's stake; anyone may.
    function stake(uint256 operator, uint256 asset, uint256 amount) external payable;

    /// @notice List `count` tickets of the operator, each for `Asset.ticketStake`, paid with this call.
    function buyTickets(uint256 operator, uint256 asset, uint256 count) external payable;

    /// @notice Mark a ticket as leaving, which no draw picks, and let its stake thaw.
    function retireTicket(uint256 operator, uint256 asset, uint256 ticketId) external;

    /// @notice Let provider's stake thaw. From then on it answers for no new lease; it can be withdrawn after
    /// `Config.thawTime`, once it answers for no old one either, and slashed until it is.
    /// @dev Thawing more starts the clock anew for all that is thawing.
    function thaw(uint256 operator, uint256 asset, uint256 amount) external;

    /// @notice Send the owner the stake that has thawed.
    function withdrawStake(uint256 operator, Role role, uint256 asset) external;

    /// @notice Send what the operator has earned to its payout address; anyone may.
    function payOut(uint256 operator, Role role, uint256 asset) external;

    function getOperator(uint256 operator) external view returns (address owner, address payout);

    function isWorker(uint256 operator, address worker) external view returns (bool);

    /// @return The stake and earnings of the operator in that role.
    function getAccount(uint256 operator, Role role, uint256 asset) external view returns (Account memory);

    function operatorCount() external view returns (uint256);

    /// @return How many tickets were ever listed.
    function ticketCount(uint256 asset) external view returns (uint256);

    /// @return operator Whose ticket it is.
    /// @return leaving Whether it was retired.
    function getTicket(uint256 asset, uint256 ticketId) external view returns (uint256 operator, bool leaving);
}
